import { describe, expect, it } from '@jest/globals';
import { countTokens } from '../../src/sandbox/emulated-tokens.ts';
import { NO_REASONING, UUID, ask, chunksOf, emulator, ended, framesOf, hello, jsonOf, latest, post, stream, withEmulator, type Completion } from './emulator-client.ts';

// The emulator is real here, and is asked over HTTP.

describe('images', () => {
  const draw = (fields: Record<string, unknown> = {}) => ask('images/generations', { model: 'grok-imagine-image', prompt: 'A blue sky', ...fields });
  interface Drawn {
    data: { url?: string; b64_json?: string; mime_type: string }[];
    usage: { cost_in_usd_ticks: number };
  }

  it('come as URLs that can be fetched, or as base64, each at its price', async () => {
    const { data, usage } = await jsonOf<Drawn>(draw({ n: 3 }));
    expect(data).toHaveLength(3);
    const image = await fetch(data[0]!.url!);
    expect([image.headers.get('content-type'), Buffer.from(await image.arrayBuffer()).subarray(1, 4).toString()]).toEqual(['image/png', 'PNG']);
    expect(usage).toEqual({ cost_in_usd_ticks: 600_000_000 });
    expect(latest()).toMatchObject({ path: '/v1/images/generations', state: 'completed', billedUsdTicks: 600_000_000n, promptTokens: 3 });
    const [inline] = (await jsonOf<Drawn>(draw({ model: 'grok-imagine-image-pro', response_format: 'b64_json' }))).data;
    expect(Buffer.from(inline!.b64_json!, 'base64').subarray(1, 4).toString()).toBe('PNG');
    expect(latest()).toMatchObject({ model: 'grok-imagine-image-quality', billedUsdTicks: 500_000_000n });
    expect((await jsonOf<Drawn>(draw({ model: 'grok-imagine-image-2.0' }))).usage.cost_in_usd_ticks).toBe(400_000_000);
  });

  it.each([
    [{ model: 'grok-4.3' }, 404], [{ n: 0 }, 400], [{ n: 11 }, 400], [{ prompt: undefined }, 422], [{ response_format: 'gif' }, 422], [{ x_emulator: { status: 503 } }, 503], [{ deferred: true }, 501],
  ])('%j: %d, free of charge', async (fields, status) => {
    expect((await draw(fields)).status).toBe(status);
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });

  it('are billed when they have been drawn, even if they do not arrive', async () => {
    await expect(draw({ x_emulator: { cut_after: 0 } }).then((response) => response.text())).rejects.toThrow('terminated');
    expect(await ended()).toMatchObject({ state: 'failed', billedUsdTicks: 200_000_000n });
    await jsonOf(draw({ x_emulator: { cost_usd_ticks: 7 } }));
    expect(latest().billedUsdTicks).toBe(7n);
  });

  it('have models of their own, none of them in the US', async () => {
    const { models } = await jsonOf<{ models: { id: string }[] }>(ask('image-generation-models'));
    expect(models.map(({ id }) => id)).toEqual(['grok-imagine-image-2.0', 'grok-imagine-image', 'grok-imagine-image-quality']);
    expect(await jsonOf(ask('image-generation-models/grok-imagine-image'))).toMatchObject({ image_price: 200_000_000, pricing: [{ price_per_image: 200_000_000 }] });
    await withEmulator({ region: 'us' }, async (other) => {
      expect((await ask('images/generations', { model: 'grok-imagine-image', prompt: 'x' }, { at: other })).status).toBe(404);
    });
  });
});

describe('embeddings', () => {
  const model = { id: 'v1', inputPriceTicks: 100, dimensions: 64 };
  interface Embedded<Vector> {
    data: { index: number; embedding: Vector }[];
    usage: { prompt_tokens: number; total_tokens: number };
  }

  it('are of no model unless there is one', async () => {
    expect((await ask('embeddings', { model: 'v1', input: 'Hi' })).status).toBe(404);
    expect(await jsonOf(ask('embedding-models'))).toEqual({ models: [] });
  });

  it('are unit vectors that hang on the text alone, as numbers or as base64', async () => {
    await withEmulator({ embeddingModels: [model] }, async (other) => {
      const embed = <Vector = number[]>(fields: Record<string, unknown>) => jsonOf<Embedded<Vector>>(ask('embeddings', { model: 'v1', ...fields }, { at: other }));
      const { data, usage } = await embed({ input: ['Blue', 'Green sky'] });
      expect(data.map(({ index }) => index)).toEqual([0, 1]);
      for (const { embedding } of data) expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
      expect(data[0]!.embedding).not.toEqual(data[1]!.embedding);
      expect(usage).toEqual({ prompt_tokens: 4, total_tokens: 4 });
      expect(latest(other)).toMatchObject({ path: '/v1/embeddings', model: 'v1', promptTokens: 4, billedUsdTicks: 400n });
      const bytes = Buffer.from((await embed<string>({ input: 'Blue', encoding_format: 'base64' })).data[0]!.embedding, 'base64');
      expect(Array.from({ length: 64 }, (_, index) => bytes.readFloatLE(index * 4))).toEqual(data[0]!.embedding);
      expect((await embed({ input: [5, 6, 7], dimensions: 16 })).data[0]!.embedding).toHaveLength(16);
      expect(latest(other).promptTokens).toBe(3);
      expect(await jsonOf(ask('embedding-models/v1', undefined, { at: other }))).toMatchObject({ id: 'v1', prompt_text_token_price: 100 });
      for (const [fields, status] of [[{ input: Array.from({ length: 129 }, () => 'x') }, 400], [{ input: [] }, 400], [{ input: '' }, 400], [{ input: 5 }, 422], [{ input: 'x', dimensions: 65 }, 400]] as const) {
        expect((await ask('embeddings', { model: 'v1', ...fields }, { at: other })).status).toBe(status);
      }
    });
  });
});

describe('tokenize-text', () => {
  it('cuts by the rule that all counts follow, and is free', async () => {
    const text = 'Grüße aus Köln 🙂';
    const { token_ids: tokens } = await jsonOf<{ token_ids: { token_id: number; string_token: string; token_bytes: number[] }[] }>(ask('tokenize-text', { model: 'grok-latest', text }));
    expect(tokens).toHaveLength(countTokens(text));
    expect(tokens.map(({ string_token: piece }) => piece).join('')).toBe(text);
    expect(Buffer.from(tokens.flatMap(({ token_bytes: bytes }) => bytes)).toString()).toBe(text);
    expect(latest()).toMatchObject({ path: '/v1/tokenize-text', model: 'grok-4.3', state: 'completed', billedUsdTicks: 0n });
    expect((await ask('tokenize-text', { model: 'grok-9', text })).status).toBe(404);
  });
});

describe('legacy completions', () => {
  const completeText = (fields: Record<string, unknown> = {}) => ask('completions', { model: NO_REASONING, prompt: 'Hello, Grok', ...fields });
  interface TextCompletion {
    choices: { index: number; text: string; finish_reason?: string }[];
    usage: { prompt_tokens: number };
  }

  it('have the documented shape', async () => {
    const answer = await jsonOf(completeText({ x_emulator: { content: ' world.' } }));
    expect(answer).toMatchObject({
      id: expect.stringMatching(UUID), object: 'text_completion', model: NO_REASONING,
      choices: [{ index: 0, text: ' world.', finish_reason: 'stop' }],
      usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5, cost_in_usd_ticks: 3 * 12_500 + 2 * 25_000 },
    });
    expect(latest()).toMatchObject({ path: '/v1/completions', billedUsdTicks: 87_500n });
  });

  it('answer every prompt n times, and repeat it when asked', async () => {
    const { choices, usage } = await jsonOf<TextCompletion>(completeText({ prompt: ['One', 'Two'], n: 2, echo: true, max_tokens: 1 }));
    expect(choices.map(({ text }) => text)).toEqual(['OneThis', 'OneThis', 'TwoThis', 'TwoThis']);
    expect(choices[0]!.finish_reason).toBe('length');
    expect(usage.prompt_tokens).toBe(2);
  });

  it('stream text, with the usage when asked', async () => {
    const frames = await framesOf(completeText({ stream: true, stream_options: { include_usage: true }, echo: true, x_emulator: { content: ' and more' } }));
    const chunks = frames.slice(0, -1).map((frame) => JSON.parse(frame) as TextCompletion);
    expect(chunks.map(({ choices }) => choices[0])).toEqual([
      { index: 0, text: 'Hello, Grok and' }, { index: 0, text: ' mor' }, { index: 0, text: 'e' }, { index: 0, text: '', finish_reason: 'stop' }, undefined,
    ]);
    expect([chunks.at(-1)!.usage.prompt_tokens, frames.at(-1)]).toEqual([3, '[DONE]']);
  });

  it.each([[{ model: 'grok-4.3' }, 400], [{ model: 'grok-3' }, 400], [{ model: 'grok-9' }, 404], [{ prompt: [] }, 400], [{ prompt: 5 }, 422], [{ x_emulator: { status: 529 } }, 529]])('%j: %d', async (fields, status) => {
    expect((await completeText(fields)).status).toBe(status);
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });
});

describe('deferred completion', () => {
  const fetchLater = (id: string, at = emulator) => ask(`chat/deferred-completion/${id}`, undefined, { at });

  it('is promised, pending, read once, and gone', async () => {
    await withEmulator({ pace: { firstTokenMs: 80, tokenIntervalMs: 0, reasoningTokenMs: 0 } }, async (other) => {
      const { request_id: id } = await jsonOf<{ request_id: string }>(post({ model: NO_REASONING, messages: hello, deferred: true }, { at: other }));
      expect(id).toMatch(UUID);
      const pending = await fetchLater(id, other);
      expect([pending.status, await pending.text()]).toEqual([202, '']);
      expect(latest(other)).toMatchObject({ state: 'running', billedUsdTicks: 0n });
      expect(await ended(other)).toMatchObject({ state: 'completed', billedUsdTicks: 600_000n });
      expect(await jsonOf<Completion>(fetchLater(id, other))).toMatchObject({ object: 'chat.completion', id: latest(other).id, usage: { cost_in_usd_ticks: 600_000 } });
      expect((await fetchLater(id, other)).status).toBe(404);
    });
  });

  it('is kept for a day, or never done', async () => {
    let nowMs = Date.UTC(2026, 9, 1);
    await withEmulator({ nowMs: () => nowMs }, async (other) => {
      const promise = async (script = {}) => (await jsonOf<{ request_id: string }>(post({ model: NO_REASONING, messages: hello, deferred: true, x_emulator: script }, { at: other }))).request_id;
      const id = await promise();
      await ended(other);
      nowMs += 24 * 60 * 60_000;
      expect((await fetchLater(id, other)).status).toBe(404);
      expect((await fetchLater(await promise({ stall_before_headers: true }), other)).status).toBe(202);
      expect((await post({ model: NO_REASONING, messages: hello, deferred: true, x_emulator: { status: 503 } }, { at: other })).status).toBe(503);
    });
  });
});

describe('documentation style', () => {
  it('has the role and the usage so far on every chunk', async () => {
    await withEmulator({ documentationStyle: true }, async (other) => {
      const chunks = chunksOf(await framesOf(stream({ model: 'grok-4.3' }, { content: 'Blue sky.', reasoning_tokens: 10 }, other)));
      expect(chunks.map(({ choices }) => choices[0]!.delta.role)).toEqual(['assistant', 'assistant', 'assistant', 'assistant']);
      expect(chunks.map(({ usage }) => usage!.completion_tokens)).toEqual([1, 2, 3, 3]);
      expect(chunks.map(({ usage }) => usage!.cost_in_usd_ticks)).toEqual([1, 2, 3, 3].map((tokens) => 8 * 12_500 + (10 + tokens) * 25_000));
      expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe('stop');
      const asked = chunksOf(await framesOf(stream({ stream_options: { include_usage: true } }, { output_tokens: 2 }, other)));
      expect(asked.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 2 } });
      other.setSwitches({ documentationStyle: false });
      expect(chunksOf(await framesOf(stream({}, {}, other)))[0]!.usage).toBeUndefined();
    });
  });
});
