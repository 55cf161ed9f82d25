import { describe, expect, it } from '@jest/globals';
import { NO_REASONING, UUID, ask, emulator, ended, jsonOf, latest, respond, withEmulator } from './emulator-client.ts';

// The emulator is real here, and is asked over HTTP.

interface Item {
  id: string;
  type: string;
  status: string;
  content: { type: string; text: string }[];
  [member: string]: unknown;
}
interface Answer {
  id: string;
  model: string;
  status: string;
  output: Item[];
  incomplete_details: { reason: string } | null;
  usage: { input_tokens: number; input_tokens_details: { cached_tokens: number }; output_tokens: number; output_tokens_details: { reasoning_tokens: number }; total_tokens: number; cost_in_usd_ticks: number };
}
interface Event {
  type: string;
  sequence_number: number;
  delta?: string;
  item?: Item;
  response?: Answer;
  [member: string]: unknown;
}

const answer = (fields?: Record<string, unknown>) => jsonOf<Answer>(respond(fields));
const refusal = (fields: Record<string, unknown>, status: number) => jsonOf<{ code: string; error: string }>(respond(fields), status);

/** Each frame has the event's name twice; the last is [DONE]. */
async function eventsOf(response: Promise<Response>, done = true): Promise<Event[]> {
  const frames = (await (await response).text()).split('\n\n').slice(0, -1);
  if (done && frames.pop() !== 'data: [DONE]') throw new Error('The stream has no end');
  return frames.map((frame) => {
    const [, name, data] = /^event: (\S+)\ndata: (.*)$/s.exec(frame)!;
    const event = JSON.parse(data!) as Event;
    expect(event.type).toBe(name);
    return event;
  });
}

const tools = [{ type: 'function', name: 'get_rate', parameters: { type: 'object', required: ['pair'], properties: { pair: { type: 'string', enum: ['EURUSD'] } } } }];

describe('plain response', () => {
  it('has the recorded shape, with reasoning inside the output', async () => {
    const body = await (await respond({ model: 'grok-4.3', x_emulator: { content: 'Blue.', reasoning_tokens: 50 } })).text();
    const { id } = latest();
    expect(id).toMatch(UUID);
    expect(body.replaceAll(id, 'ID').replace(/"created_at":\d+,"completed_at":\d+/, '"created_at":0,"completed_at":0')).toBe(JSON.stringify({
      created_at: 0, completed_at: 0, id: 'ID', max_output_tokens: null, model: 'grok-4.3', object: 'response',
      output: [
        { id: 'rs_ID', type: 'reasoning', status: 'completed', summary: [{ type: 'summary_text', text: 'Thought about what was asked.' }] },
        { id: 'msg_ID', type: 'message', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text: 'Blue.', logprobs: [], annotations: [] }] },
      ],
      parallel_tool_calls: true, previous_response_id: null, reasoning: { effort: null, summary: null }, temperature: 1, top_p: 1,
      text: { format: { type: 'text' } }, tool_choice: 'auto', tools: [],
      usage: {
        input_tokens: 8, input_tokens_details: { cached_tokens: 0 }, output_tokens: 52, output_tokens_details: { reasoning_tokens: 50 }, total_tokens: 60,
        num_sources_used: 0, num_server_side_tools_used: 0, cost_in_usd_ticks: 8 * 12_500 + 52 * 25_000,
      },
      user: null, incomplete_details: null, status: 'completed', store: true, metadata: {}, background: false, service_tier: 'default', truncation: 'disabled',
      top_logprobs: 0, presence_penalty: 0, frequency_penalty: 0, prompt_cache_key: null, max_tool_calls: null, safety_identifier: null, error: null, instructions: null,
    }));
    expect(latest()).toMatchObject({ path: '/v1/responses', state: 'completed', completionTokens: 2, reasoningTokens: 50, billedUsdTicks: 1_400_000n });
  });

  it('ends at max_output_tokens, which limits visible tokens alone', async () => {
    const { status, incomplete_details: details, output, usage } = await answer({ model: 'grok-4.3', max_output_tokens: 5, x_emulator: { output_tokens: 50, reasoning_tokens: 60 } });
    expect([status, details, output[1]!.status]).toEqual(['incomplete', { reason: 'max_output_tokens' }, 'incomplete']);
    expect(usage).toMatchObject({ output_tokens: 65, output_tokens_details: { reasoning_tokens: 60 } });
  });

  it('calls a function that it must, and is JSON when asked for', async () => {
    const { output } = await answer({ tools, tool_choice: { type: 'function', name: 'get_rate' } });
    expect(output).toEqual([
      { type: 'function_call', id: `fc_${latest().id}_0`, call_id: expect.stringMatching(/^call_\d{8}$/), name: 'get_rate', arguments: '{"pair":"EURUSD"}', status: 'completed' },
    ]);
    const schema = { type: 'object', required: ['ok'], properties: { ok: { type: 'boolean' } } };
    const json = await answer({ text: { format: { type: 'json_schema', name: 'check', schema, strict: true } } });
    expect(json.output[0]!.content[0]!.text).toBe('{"ok":true}');
  });

  it('bills server-side tools only as scripted', async () => {
    const web = [{ type: 'web_search' }];
    expect((await answer({ tools: web, tool_choice: 'required' })).usage).not.toHaveProperty('server_side_tool_usage_details');
    const { output, usage } = await answer({ tools: web, x_emulator: { content: 'four', server_tool_calls: { web_search_calls: 2, x_posts_fetched: 3 } } });
    expect(output.map(({ type }) => type)).toEqual(['web_search_call', 'web_search_call', 'message']);
    expect(usage).toMatchObject({ num_server_side_tools_used: 2, server_side_tool_usage_details: { web_search_calls: 2, x_posts_fetched: 3, mcp_calls: 0 } });
    expect(usage.cost_in_usd_ticks).toBe((8 + 9) * 12_500 + 25_000 + 5 * 50_000_000);
  });

  it('serves the models that chat does not', async () => {
    expect((await answer({ model: 'grok-4.20-multi-agent', reasoning: { effort: 'xhigh' } })).model).toBe('grok-4.20-multi-agent-0309');
    expect((await refusal({ model: 'grok-4.20-multi-agent', tools }, 400)).error).toContain('Client-side tools');
    expect((await refusal({ model: 'grok-4.20-multi-agent', max_output_tokens: 9 }, 400)).error).toContain('maxOutputTokens');
  });

  it('gives sealed reasoning when asked, or always with grok-4.7, and takes it back for the same model alone', async () => {
    expect((await answer({ model: 'grok-4.3' })).output[0]).not.toHaveProperty('encrypted_content');
    const { output } = await answer({ model: 'grok-4.3', include: ['reasoning.encrypted_content'] });
    const input = [...output, { role: 'user', content: 'And now?' }];
    await answer({ model: 'grok-4.3', input });
    expect((await refusal({ model: 'grok-4.7', input }, 400)).error).toContain('encrypted reasoning');
    expect((await answer({ model: 'grok-4.7' })).output[0]).toHaveProperty('encrypted_content');
  });
});

describe('refused responses', () => {
  it.each([
    [{ input: undefined }, 422, 'missing field `input`'],
    [{ input: [{ role: 'boss', content: 'Hi' }] }, 422, 'input[0].role: unknown variant `boss`'],
    [{ input: [{ role: 'user', content: [{ type: 'input_text' }] }] }, 422, 'input[0].content[0]: missing field `text`'],
    [{ input: [{ type: 'function_call_output', output: '1' }] }, 422, 'input[0]: missing field `call_id`'],
    [{ input: [] }, 400, 'Messages cannot be empty'],
    [{ tools: [{ type: 'telepathy' }] }, 422, 'tools[0].type: unknown variant'],
    [{ tool_choice: 'required' }, 400, 'tool_choice'],
    [{ model: 'grok-4.5', reasoning: { effort: 'none' } }, 400, 'reasoning effort none'],
    [{ model: 'grok-4.5', reasoning_effort: 'none' }, 400, 'reasoning effort none'],
    [{ reasoning: { effort: 'low' } }, 400, 'reasoningEffort'],
    [{ model: 'grok-4.7', presence_penalty: 0 }, 400, 'presencePenalty'],
    [{ top_k: 0 }, 400, 'top_k'],
    [{ model: 'grok-9' }, 404, 'The model grok-9 does not exist'],
    [{ previous_response_id: 'nothing' }, 404, 'nothing'],
    [{ search_parameters: {} }, 410, 'Live search'],
    [{ x_emulator: { nothing: 1 } }, 422, 'x_emulator'],
  ])('%j: %d', async (fields, status, text) => {
    expect((await refusal(fields, status)).error).toContain(text);
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n, path: '/v1/responses' });
  });

  it('takes reasoning_effort only in the absence of reasoning, and fields that it does not know', async () => {
    expect((await answer({ model: 'grok-4.3', reasoning: { effort: 'none' }, reasoning_effort: 'bogus', unknown_field: 1 })).usage.output_tokens_details.reasoning_tokens).toBe(0);
  });
});

describe('streamed response', () => {
  it('comes in the recorded order, numbered without gaps', async () => {
    const response = await respond({ model: 'grok-4.3', stream: true, x_emulator: { content: 'Blue sky.' } });
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const events = await eventsOf(Promise.resolve(response));
    expect(events.map(({ sequence_number: number }) => number)).toEqual(events.map((_, index) => index));
    expect(events.map(({ type }) => type).filter((type, index, types) => type !== types[index - 1])).toEqual([
      'response.created', 'response.in_progress',
      'response.output_item.added', 'response.reasoning_summary_part.added', 'response.reasoning_summary_text.delta',
      'response.reasoning_summary_text.done', 'response.reasoning_summary_part.done', 'response.output_item.done',
      'response.output_item.added', 'response.content_part.added', 'response.output_text.delta',
      'response.output_text.done', 'response.content_part.done', 'response.output_item.done', 'response.completed',
    ]);
    expect(events[0]!.response).toMatchObject({ status: 'in_progress', output: [] });
    expect(events[0]!.response).not.toHaveProperty('usage');
    expect(events.flatMap(({ type, delta }) => (type === 'response.output_text.delta' ? [delta] : []))).toEqual(['Blue', ' sky', '.']);
    expect(events.at(-1)!.response).toEqual(await jsonOf(ask(`responses/${latest().id}`)));
    expect(latest()).toMatchObject({ state: 'completed', framesSent: events.length + 1, billedUsdTicks: BigInt(events.at(-1)!.response!.usage.cost_in_usd_ticks) });
  });

  it('sends the arguments of a function call in pieces', async () => {
    const events = await eventsOf(respond({ stream: true, tools, tool_choice: 'required' }));
    expect(events.flatMap(({ type, delta }) => (type === 'response.function_call_arguments.delta' ? [delta] : [])).join('')).toBe('{"pair":"EURUSD"}');
    expect(events.map(({ type }) => type).slice(-3)).toEqual(['response.function_call_arguments.done', 'response.output_item.done', 'response.completed']);
    expect(latest().completionTokens).toBe(7); // of name and arguments: 25 bytes
    const cut = await eventsOf(respond({ stream: true, tools, tool_choice: 'required', max_output_tokens: 4 }));
    expect(cut.at(-1)).toMatchObject({ type: 'response.incomplete', response: { status: 'incomplete', output: [{ arguments: '{"pair":', status: 'incomplete' }] } });
  });

  it('ends incomplete at its limit', async () => {
    const events = await eventsOf(respond({ stream: true, max_output_tokens: 2 }));
    expect(events.at(-1)).toMatchObject({ type: 'response.incomplete', response: { status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } } });
  });

  it.each([
    ['flat', { type: 'error', code: 'The service is currently unavailable', message: expect.any(String), param: null }],
    ['failed', { type: 'response.failed', response: expect.objectContaining({ status: 'failed', error: { code: expect.any(String), message: expect.any(String) } }) }],
  ] as const)('fails in mid-stream with a %s error, whose number follows on', async (shape, event) => {
    const events = await eventsOf(respond({ stream: true, x_emulator: { error_frame_after: 3, error_shape: shape } }), false);
    expect(events.at(-1)).toEqual({ ...event, sequence_number: events.length - 1 });
    expect(events).toHaveLength(2 + 2 + 3 + 1);
    expect(latest()).toMatchObject({ state: 'failed', completionTokens: 3, billedUsdTicks: 100_000n + 3n * 25_000n, framesSent: 8 });
    await jsonOf(ask(`responses/${latest().id}`), 404);
  });

  it('obeys the scripts that chat obeys, and bills alike', async () => {
    expect((await respond({ x_emulator: { status: 429, retry_after: 3 } })).headers.get('retry-after')).toBe('3');
    await expect(respond({ stream: true, x_emulator: { cut_after: 3 } }).then((response) => response.text())).rejects.toThrow('terminated');
    expect(await ended()).toMatchObject({ state: 'failed', completionTokens: 3, framesSent: 7, billedUsdTicks: 175_000n });
    const aborter = new AbortController();
    const reader = (await respond({ stream: true, x_emulator: { stall_after: 2 } }, { signal: aborter.signal })).body!.getReader();
    await reader.read();
    aborter.abort();
    expect(await ended()).toMatchObject({ state: 'aborted', completionTokens: 2, billedUsdTicks: 150_000n });
    expect((await (await respond({ stream: true, x_emulator: { no_done: true, crlf: true } })).text()).split('\r\n\r\n').at(-2)).toMatch(/^event: response\.completed\r\ndata: /);
  });
});

describe('stored responses', () => {
  it('continue each other, with the whole context as input again, most of it cached', async () => {
    const first = await answer({ instructions: 'You are brief. '.repeat(200), x_emulator: { content: 'Blue' } });
    const second = await answer({ input: [{ role: 'user', content: 'Why?' }], previous_response_id: first.id });
    expect(second.usage.input_tokens).toBe(first.usage.input_tokens + 4 + 4); // the answer and the new message, with their roles
    expect(second.usage.input_tokens_details.cached_tokens).toBe(704);
    expect(second.usage.cost_in_usd_ticks).toBe((second.usage.input_tokens - 704) * 12_500 + 704 * 2_000 + 20 * 25_000);
    expect((await refusal({ previous_response_id: first.id, instructions: 'x' }, 400)).error).toContain('instructions');
  });

  it('can be read and deleted, and are gone after 30 days', async () => {
    let nowMs = Date.UTC(2026, 9, 1);
    await withEmulator({ nowMs: () => nowMs }, async (other) => {
      const get = (id: string, status = 200) => jsonOf(ask(`responses/${id}`, undefined, { at: other }), status);
      const stored = await jsonOf<Answer>(respond({}, { at: other }));
      expect(await get(stored.id)).toEqual(stored);
      nowMs += 30 * 24 * 60 * 60_000 - 1;
      await get(stored.id);
      nowMs += 1;
      await get(stored.id, 404);
      const again = await jsonOf<Answer>(respond({}, { at: other }));
      expect(await jsonOf(ask(`responses/${again.id}`, undefined, { at: other, method: 'DELETE' }))).toEqual({ id: again.id, object: 'response', deleted: true });
      await get(again.id, 404);
      const unstored = await jsonOf<Answer>(respond({ store: false }, { at: other }));
      await get(unstored.id, 404);
      expect((await ask(`responses/${again.id}`, undefined, { at: other, headers: { authorization: '' } })).status).toBe(401);
    });
  });

  it('list their input in pages', async () => {
    const { id } = await answer({ input: ['a', 'b', 'c'].map((content) => ({ role: 'user', content })) });
    const list = (query = '') => jsonOf<{ data: Item[]; first_id: string; last_id: string; has_more: boolean }>(ask(`responses/${id}/input_items${query}`));
    const all = await list();
    expect(all).toMatchObject({ object: 'list', has_more: false, first_id: all.data[0]!.id, last_id: all.data[2]!.id });
    expect(all.data.map(({ content }) => content)).toEqual(['a', 'b', 'c']);
    expect(await list(`?limit=1&after=${all.first_id}`)).toMatchObject({ data: [{ content: 'b' }], has_more: true });
    expect((await list('?order=desc')).data.map(({ content }) => content)).toEqual(['c', 'b', 'a']);
    const text = await answer();
    expect(await jsonOf(ask(`responses/${text.id}/input_items`))).toMatchObject({ data: [{ type: 'message', role: 'user', content: [{ type: 'input_text', text: 'Hello there, Grok.' }] }] });
  });

  it('do not exist for a team without data retention', async () => {
    await withEmulator({ zeroDataRetention: true }, async (other) => {
      for (const fields of [{ store: true }, {}]) await jsonOf(respond(fields, { at: other }), 400);
      const response = await respond({ store: false }, { at: other });
      expect([response.status, response.headers.get('x-zero-data-retention')]).toEqual([200, 'true']);
    });
  });
});

it('cached tokens are a matter of one key, of one emulator', async () => {
  const input = 'You are brief. '.repeat(200);
  const cached = async (fields: Record<string, unknown>, at = emulator) => (await jsonOf<Answer>(respond({ input, store: false, ...fields }, { at }))).usage.input_tokens_details.cached_tokens;
  expect(await cached({ prompt_cache_key: 'a' })).toBe(0);
  expect(await cached({ prompt_cache_key: 'a' })).toBe(704);
  expect(await cached({ prompt_cache_key: 'b' })).toBe(0);
  expect(await cached({})).toBe(0);
  await withEmulator({}, async (other) => expect(await cached({ prompt_cache_key: 'a' }, other)).toBe(0));
  expect(latest().model).toBe(NO_REASONING);
});
