import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/shared/clock.ts';
import { startReplica } from '../support/deployments.ts';
import { eventually, startHarness, type Harness } from '../support/harness.ts';
import { expectError } from '../support/wire.ts';
import { admin, auditor, call, count, read, rotate, setStorage, stored } from './sealed-payloads.ts';

const DAY_MS = 86_400_000;

let movedMs: number;
const clock: Clock = { nowMs: () => Date.now() + movedMs, monotonicMs: () => performance.now() };
let harness: Harness;
let folder: string;
beforeAll(async () => {
  movedMs = 0;
  harness = await startHarness({ clock });
  folder = join(harness.settings.dataDir, 'payload-keys');
  await setStorage(harness, 'both');
});
afterAll(async () => {
  await harness.close();
});
/** Each test begins with nothing stored, and no keys. */
beforeEach(async () => {
  for (const table of ['payloads', 'payload_data_keys', 'payload_epochs']) await harness.db.query(`DELETE FROM ${table}`);
  movedMs += DAY_MS; // so that no process has a data key of the day
});

/** Whether so many sessions of this database wait for a lock. */
async function waiting(sessions: number): Promise<boolean> {
  const { rows } = await harness.db.query<{ n: number }>("SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'");
  return rows[0]!.n >= sessions;
}

describe('rotation', () => {
  it('makes a new epoch, keeps each text as it was sealed, and destroys the old root', async () => {
    const { requestId } = await call(harness, { text: 'before' });
    const before = await harness.db.query('SELECT sealed FROM payloads ORDER BY purpose');
    const rotated = await rotate(harness);
    expect(rotated.data_keys_wrapped_anew).toBe(1);
    expect((await readdir(folder)).includes(`${rotated.destroyed[0]!}.root`)).toBe(false);
    expect((await stored(harness, requestId))['prompt']).toContain('before');
    expect((await harness.db.query('SELECT sealed FROM payloads ORDER BY purpose')).rows).toEqual(before.rows);
    const { requestId: after } = await call(harness, { text: 'after' });
    expect((await stored(harness, after))['prompt']).toContain('after');
    expect(await count(harness, 'payload_epochs', 'retired_at IS NULL')).toBe(1);
  });

  it('of a tenant without keys, or that is none, is not found', async () => {
    const messages = new Set<string>();
    for (const order of ['globex:rotate', 'nobody:rotate', 'globex']) messages.add((await expectError(await harness.request('POST', `/admin/v1/payload-keys/${order}`, { token: await admin(harness) }), 404, 'not_found')).message);
    expect(messages.size).toBe(3);
  });

  it('does not lose a data key that is made for the old epoch at that very moment', async () => {
    await call(harness);
    const other = await harness.db.connect();
    await other.query('BEGIN');
    await other.query('SELECT FROM payload_data_keys FOR UPDATE'); // the rotation gets as far as the old data key, which it cannot wrap anew yet
    const rotating = rotate(harness);
    await eventually(() => waiting(1));
    movedMs += DAY_MS;
    const calling = call(harness, { text: 'in between' }); // needs a data key of the new day, and knows the old epoch alone
    await new Promise((resolve) => setTimeout(resolve, 300));
    await other.query('COMMIT');
    other.release();
    const { destroyed } = await rotating;
    expect(destroyed).toHaveLength(1);
    expect((await stored(harness, (await calling).requestId))['prompt']).toContain('in between');
    expect(await count(harness, 'payload_data_keys', `epoch_id = '${destroyed[0]!}'`)).toBe(0);
  });

  it('under load loses nothing: two replicas seal and make data keys while epochs come and go', async () => {
    const replica = await startReplica(harness, {}, clock);
    const requests: { requestId: string; text: string }[] = [];
    let busy = true;
    const worker = async (url: string): Promise<void> => {
      while (busy) {
        const text = `under load ${randomUUID()}`;
        const { requestId, status: answered, body } = await call(harness, { text, url, script: { output_tokens: 2 } });
        expect([answered, answered === 200 ? '' : body]).toEqual([200, '']);
        requests.push({ requestId, text });
      }
    };
    const workers = [harness.url, replica.url, harness.url, replica.url].map(worker);
    await eventually(() => requests.length >= 4);
    const unread: number[] = [];
    let reads = 0;
    const reader = async (): Promise<void> => {
      const token = await auditor(harness);
      while (busy) {
        const { status: answered } = await read(harness, requests[reads % 4]!.requestId, token);
        if (answered !== 200) unread.push(answered);
        reads += 1;
      }
    };
    workers.push(reader(), reader());
    for (let turn = 0; turn < 12; turn += 1) {
      if (turn % 3 === 1) movedMs += DAY_MS; // each replica makes a data key of the new day, just now
      await rotate(harness);
    }
    busy = false;
    await Promise.all(workers);
    await replica.close();
    expect(requests.length).toBeGreaterThan(30);
    expect([reads > 30, unread]).toEqual([true, []]);
    expect(await count(harness, 'payload_data_keys')).toBeGreaterThanOrEqual(8);
    const lost: string[] = [];
    for (const { requestId, text } of requests) {
      const texts = await stored(harness, requestId).catch((error: unknown) => ({ prompt: String(error), answer: undefined }));
      if (!texts['prompt']?.includes(text) || texts['answer'] === undefined) lost.push(`${requestId}: ${texts['prompt']}`);
    }
    expect(lost).toEqual([]);
    const { rows } = await harness.db.query<{ id: string; destroyed: boolean }>('SELECT id, destroyed_at IS NOT NULL AS destroyed FROM payload_epochs');
    const roots = await readdir(folder);
    expect(rows.filter(({ id, destroyed }) => roots.includes(`${id}.root`) === destroyed)).toEqual([]);
    expect(rows.filter(({ destroyed }) => !destroyed)).toHaveLength(1);
  });
});
