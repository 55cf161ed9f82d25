import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startXaiEmulator, type EmulatorScript, type XaiEmulator } from '../../sandbox/xai-emulator.ts';
import { responseEvents } from './response-events.ts';

// The events of a response that is there already, against those that the emulated xAI sends as it makes one.

type Fields = Record<string, unknown>;
interface Event extends Fields {
  type: string;
  sequence_number: number;
}

const KEY = 'xai-test-key';
const USAGE = { input_tokens: 3, output_tokens: 4, total_tokens: 7 };

function parse(text: string): { named: (string | undefined)[]; events: Event[]; end: string } {
  const frames = text.split('\n\n').filter((frame) => frame !== '');
  const end = frames.pop()!;
  return {
    end,
    named: frames.map((frame) => /^event: (.+)$/m.exec(frame)?.[1]),
    events: frames.map((frame) => JSON.parse(/^data: (.+)$/m.exec(frame)![1]!) as Event),
  };
}
const eventsOf = (response: Fields): Event[] => parse(responseEvents(response).toString()).events;
const types = (events: readonly Event[]): string[] => events.map(({ type }) => type.replace('response.', ''));

function response(output: Fields[], more: Fields = {}): Fields {
  return { id: 'resp_1', object: 'response', created_at: 1, completed_at: 2, status: 'completed', model: 'grok-4.3', output, usage: USAGE, ...more };
}
const message = (...content: Fields[]): Fields => ({ id: 'msg_1', type: 'message', role: 'assistant', status: 'completed', content });
const said = (text: string, more: Fields = {}): Fields => ({ type: 'output_text', text, annotations: [], logprobs: [], ...more });

describe('the events of a response', () => {
  it('are named, numbered from 0 without a gap, and end in [DONE]', () => {
    const { named, events, end } = parse(responseEvents(response([message(said('Hello.'))])).toString());
    expect(end).toBe('data: [DONE]');
    expect(named).toEqual(events.map(({ type }) => type));
    expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, index) => index));
    expect(events).toHaveLength(9);
  });

  it('begin with a response that has no output, end or price yet, and end with all of it', () => {
    const whole = response([message(said('Hello.'))]);
    const events = eventsOf(whole);
    for (const [index, type] of ['response.created', 'response.in_progress'].entries()) {
      expect(events[index]).toMatchObject({ type, response: { id: 'resp_1', status: 'in_progress', output: [], completed_at: null } });
      expect(events[index]!['response']).not.toHaveProperty('usage');
    }
    expect(events.at(-1)).toEqual({ type: 'response.completed', sequence_number: events.length - 1, response: whole });
  });

  it('of a text are its item, its part, and the text in one piece', () => {
    const item = message(said('Grüße, 日本 🙂\n"quoted"'));
    const events = eventsOf(response([item]));
    expect(types(events)).toEqual(['created', 'in_progress', 'output_item.added', 'content_part.added', 'output_text.delta', 'output_text.done', 'content_part.done', 'output_item.done', 'completed']);
    const place = { item_id: 'msg_1', output_index: 0, content_index: 0 };
    expect(events[2]).toMatchObject({ output_index: 0, item: { id: 'msg_1', status: 'in_progress', content: [] } });
    expect(events[3]).toMatchObject({ ...place, part: { type: 'output_text', text: '' } });
    expect(events[4]).toMatchObject({ ...place, delta: 'Grüße, 日本 🙂\n"quoted"' });
    expect(events[5]).toMatchObject({ ...place, text: 'Grüße, 日本 🙂\n"quoted"' });
    expect(events[6]).toMatchObject({ ...place, part: (item['content'] as Fields[])[0] });
    expect(events[7]).toMatchObject({ output_index: 0, item });
  });

  it('of several parts and items say of each where it belongs', () => {
    const events = eventsOf(response([{ id: 'rs_1', type: 'reasoning', status: 'completed', summary: [] }, message(said('One.'), said('Two.')), { ...message(said('Three.')), id: 'msg_2' }]));
    const deltas = events.filter(({ type }) => type === 'response.output_text.delta');
    expect(deltas.map(({ item_id: id, output_index: item, content_index: part, delta }) => [id, item, part, delta])).toEqual([['msg_1', 1, 0, 'One.'], ['msg_1', 1, 1, 'Two.'], ['msg_2', 2, 0, 'Three.']]);
    expect(events.filter(({ type }) => type === 'response.output_item.done').map(({ output_index: item }) => item)).toEqual([0, 1, 2]);
  });

  it('of a function call are its arguments in one piece', () => {
    const item = { id: 'fc_1', type: 'function_call', call_id: 'call_1', name: 'weather', arguments: '{"city":"Köln"}', status: 'completed' };
    const events = eventsOf(response([item]));
    expect(types(events)).toEqual(['created', 'in_progress', 'output_item.added', 'function_call_arguments.delta', 'function_call_arguments.done', 'output_item.done', 'completed']);
    expect(events[2]!['item']).toEqual({ ...item, status: 'in_progress', arguments: '' });
    expect(events[3]).toMatchObject({ item_id: 'fc_1', output_index: 0, delta: '{"city":"Köln"}' });
    expect(events[4]).toMatchObject({ item_id: 'fc_1', output_index: 0, name: 'weather', arguments: '{"city":"Köln"}' });
    expect(events[5]!['item']).toEqual(item);
  });

  it('of a refusal, and of an item that nobody here knows, have it whole', () => {
    const refusal = { type: 'refusal', refusal: 'No.' };
    const search = { id: 'ws_1', type: 'web_search_call', status: 'completed', action: { query: 'weather' } };
    const events = eventsOf(response([search, message(refusal)]));
    expect(types(events)).toEqual(['created', 'in_progress', 'output_item.added', 'output_item.done', 'output_item.added', 'content_part.added', 'content_part.done', 'output_item.done', 'completed']);
    expect([events[3]!['item'], events[6]!['part']]).toEqual([search, refusal]);
  });

  it('of an incomplete response end so', () => {
    const whole = response([message(said('Hel'))], { status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
    expect(eventsOf(whole).at(-1)).toMatchObject({ type: 'response.incomplete', response: whole });
  });

  it('of a response without output are its beginning and its end', () => {
    expect(types(eventsOf(response([])))).toEqual(['created', 'in_progress', 'completed']);
    expect(types(eventsOf({ id: 'resp_1', status: 'completed' }))).toEqual(['created', 'in_progress', 'completed']);
  });

  it('leave the response as it was', () => {
    const whole = response([message(said('Hello.'))]);
    const before = structuredClone(whole);
    responseEvents(whole);
    expect(whole).toEqual(before);
  });
});

describe('beside those of the provider', () => {
  let emulator: XaiEmulator;
  beforeAll(async () => {
    emulator = await startXaiEmulator({ apiKeys: [KEY] });
  });
  afterAll(async () => {
    await emulator.close();
  });

  /** What the provider sends, each text's pieces put together: types in their order. */
  async function ofProvider(script: EmulatorScript, more: Fields = {}): Promise<{ events: Event[]; merged: string[] }> {
    const answer = await fetch(`${emulator.url}/responses`, {
      method: 'POST', headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }, body: JSON.stringify({ model: 'grok-4.3', input: 'Say hello.', stream: true, store: false, x_emulator: script, ...more }),
    });
    expect(answer.status).toBe(200);
    const text = await answer.text();
    const { events } = parse(text.endsWith('data: [DONE]\n\n') ? text : `${text}data: [DONE]\n\n`);
    return { events, merged: types(events).filter((type, index, all) => !(type.endsWith('.delta') && all[index - 1] === type)) };
  }
  const weather = { type: 'function', name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } };

  it.each<[string, EmulatorScript, Fields]>([
    ['a text', { content: 'A text of some length, in pieces.', reasoning_tokens: 0 }, {}],
    ['a text that was thought about', { content: 'A text.', reasoning_tokens: 9 }, {}],
    ['a text that was cut short', { output_tokens: 50, reasoning_tokens: 0 }, { max_output_tokens: 5 }],
    ['a tool call', { reasoning_tokens: 0 }, { tools: [weather], tool_choice: 'required' }],
  ])('%s has the same items, texts and end', async (_, script, more) => {
    const { events: theirs, merged } = await ofProvider(script, more);
    const ours = eventsOf(theirs.at(-1)!['response'] as Fields);
    const sameKind = (list: readonly string[]): string[] => list.filter((type) => !type.includes('reasoning_summary'));
    expect(sameKind(types(ours))).toEqual(sameKind(merged));
    const textOf = (events: readonly Event[]): string => events.filter(({ type }) => type.endsWith('.delta') && !type.includes('reasoning')).map(({ delta }) => String(delta)).join('');
    expect(textOf(ours)).toBe(textOf(theirs));
    expect(textOf(ours).length).toBeGreaterThan(3);
    const done = (events: readonly Event[]): unknown[] => events.filter(({ type }) => type === 'response.output_item.done').map(({ item, output_index: index }) => [index, item]);
    expect(done(ours)).toEqual(done(theirs));
    expect(ours.at(-1)!['response']).toEqual(theirs.at(-1)!['response']);
  });

  it('each event has the members that the provider’s has', async () => {
    for (const [script, more] of [[{ content: 'A text.', reasoning_tokens: 3 }, {}], [{ reasoning_tokens: 0 }, { tools: [weather], tool_choice: 'required' }]] as [EmulatorScript, Fields][]) {
      const { events: theirs } = await ofProvider(script, more);
      const ours = eventsOf(theirs.at(-1)!['response'] as Fields);
      const members = (events: readonly Event[], type: string): string[] => Object.keys(events.find((event) => event.type === type)!).toSorted();
      for (const type of new Set(ours.map((event) => event.type))) expect([type, ...members(ours, type)]).toEqual([type, ...members(theirs, type)]);
    }
  });
});
