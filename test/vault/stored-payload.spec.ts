import { describe, expect, it } from '@jest/globals';
import { createSecretKey, randomBytes } from 'node:crypto';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { Principal } from '../../src/auth/principal.ts';
import { StoredPayloads } from '../../src/completions/stored-payload.ts';
import type { DataKey } from '../../src/vault/data-keys.ts';
import { PayloadMetrics } from '../../src/vault/payload-metrics.ts';
import type { SealedText } from '../../src/vault/payload-vault.ts';
import { openRecord, RecordSealer, uuidBytes } from '../../src/vault/record-cipher.ts';

// Memory, which a database would only hide: copies of all calls together take no more than the bound.

const ID = '01890000-0000-7000-8000-0000000000aa';
const DATA_KEY: DataKey = { id: ID, idBytes: uuidBytes(ID), day: '2026-11-24', key: createSecretKey(randomBytes(32)) };
const PRINCIPAL = { tenantId: 'acme', payloadStorage: 'both' } as Principal;
const REQUEST = '01890000-0000-7000-8000-000000000001';

async function setUp(copiesBytesMax: number): Promise<{ payloads: StoredPayloads; stored: SealedText[]; metrics: () => Promise<string> }> {
  const registry = new Registry();
  const stored: SealedText[] = [];
  const vault = { dataKey: async () => DATA_KEY, sealer: ({ key, idBytes }: DataKey, name: SealedText['name']) => new RecordSealer(key, idBytes, name), store: async (text: SealedText) => void stored.push(text) };
  return { payloads: new StoredPayloads(vault, new PayloadMetrics(registry, copiesBytesMax), pino({ level: 'silent' })), stored, metrics: () => registry.metrics() };
}

describe('copies of texts', () => {
  it('of all calls together take no more than the bound: an answer that does not fit is not stored, and the next one is', async () => {
    const { payloads, stored, metrics } = await setUp(100);
    const first = await payloads.begin(PRINCIPAL, REQUEST, Buffer.alloc(10));
    const second = await payloads.begin(PRINCIPAL, REQUEST, Buffer.alloc(10));
    first.update(Buffer.alloc(60), 'events');
    second.update(Buffer.alloc(30), 'events');
    expect(await metrics()).toMatch(/novix_payload_copies_bytes 90\n/);
    second.update(Buffer.alloc(30), 'events');
    expect(await metrics()).toMatch(/novix_payload_copies_bytes 60\n/);
    second.update(Buffer.alloc(1), 'events'); // what comes after is not taken for a whole answer
    expect(await second.finish()).toEqual({ data_key_id: ID, prompt: { bytes: 10 }, answer: 'not_stored' });
    expect(await first.finish()).toEqual({ data_key_id: ID, prompt: { bytes: 10 }, answer: { bytes: 60 } });
    expect(stored.map(({ name, textBytes }) => [name.purpose, textBytes])).toEqual([['prompt', 10], ['prompt', 10], ['answer', 60]]);
    expect(await metrics()).toMatch(/novix_payload_copies_bytes 0\n/);
    expect(await metrics()).toMatch(/novix_payloads_not_stored_total\{purpose="answer",reason="memory"\} 1\n/);
  });

  it('of prompts count too: one that does not fit refuses its call', async () => {
    const { payloads, stored, metrics } = await setUp(100);
    await expect(payloads.begin(PRINCIPAL, REQUEST, Buffer.alloc(101))).rejects.toMatchObject({ code: 'audit_unavailable', status: 503 });
    expect(stored).toEqual([]);
    expect(await metrics()).toMatch(/novix_payloads_not_stored_total\{purpose="prompt",reason="memory"\} 1\n/);
    expect(await metrics()).toMatch(/novix_payload_copies_bytes 0\n/);
  });

  it('of an attempt that has a successor are let go', async () => {
    const { payloads, stored, metrics } = await setUp(100);
    const payload = await payloads.begin(PRINCIPAL, REQUEST, Buffer.alloc(0));
    payload.update(Buffer.alloc(80), 'events');
    payload.restart();
    expect(await metrics()).toMatch(/novix_payload_copies_bytes 0\n/);
    payload.update(Buffer.from('second'), 'json');
    expect(await payload.finish()).toEqual({ data_key_id: ID, answer: { bytes: 6 } });
    const [answer] = stored;
    expect(answer!.contentType).toBe('application/json');
    expect(openRecord(DATA_KEY.key, DATA_KEY.idBytes, answer!.name, answer!.sealed).toString()).toBe('second');
  });
});
