import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { mkdir, readdir, readFile, rmdir, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Pool } from 'pg';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { Clock } from '../../src/shared/clock.ts';
import { Retention, type RetentionStep } from '../../src/vault/retention.ts';
import { firstKeptDay } from '../../src/vault/retention-plan.ts';
import { startHarness, type Harness } from '../support/harness.ts';
import { expectError } from '../support/wire.ts';
import { admin, auditor, call, count, read, rotate, setStorage, setTier, status, stored } from './sealed-payloads.ts';

const DAY_MS = 86_400_000;

interface Run {
  complete: boolean;
  summary: { payloads: { rows: number; partitions: number; data_keys: number; epochs: number; failures: number } };
}

let movedMs: number;
const clock: Clock = { nowMs: () => Date.now() + movedMs, monotonicMs: () => performance.now() };
let harness: Harness;
let folder: string;
beforeAll(async () => {
  movedMs = 0;
  harness = await startHarness({ clock });
  folder = join(harness.settings.dataDir, 'payload-keys');
  for (const tenant of ['acme', 'globex', 'initech']) await setStorage(harness, 'both', tenant);
});
afterAll(async () => {
  await harness.close();
});
/** Each test begins with nothing stored, and no keys. */
beforeEach(async () => {
  movedMs += 1_000;
  await harness.db.query('DELETE FROM payloads');
  await harness.db.query('DELETE FROM payload_data_keys');
  await harness.db.query('DELETE FROM payload_epochs');
  movedMs = Math.ceil(movedMs / DAY_MS + 1) * DAY_MS; // so that no process has a data key of the day
});

async function runRetention(): Promise<Run> {
  const response = await harness.request('POST', '/admin/v1/retention:run', { token: await admin(harness) });
  const text = await response.text();
  expect([response.status, response.status === 200 ? '' : text]).toEqual([200, '']);
  return JSON.parse(text) as Run;
}

async function partitionsBefore(day: string): Promise<string[]> {
  const { rows } = await harness.db.query<{ name: string }>("SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'payloads'::regclass ORDER BY 1");
  return rows.map(({ name }) => name).filter((name) => name < `payloads_${day.replaceAll('-', '')}`);
}

/** Receipts of the vault for one tenant, by what they are about. */
async function receipts(tenant: string, type: string, after: Date): Promise<{ id: string; activity: number; before: unknown; after: unknown; actor: string; operation: string }[]> {
  const { rows } = await harness.db.query<{ event: { activity_id: number; time: number; actor: { user: { uid: string } }; api: { operation: string }; metadata: { tenant_uid: string }; unmapped: { novix: { object?: { type: string; id: string }; before?: unknown; after?: unknown } } } }>('SELECT event FROM audit_events ORDER BY index NULLS LAST');
  return rows.map(({ event }) => event).filter(({ metadata, time, unmapped }) => metadata.tenant_uid === tenant && unmapped.novix.object?.type === type && time >= after.getTime())
    .map(({ activity_id: activity, actor, api, unmapped: { novix } }) => ({ id: novix.object!.id, activity, before: novix.before, after: novix.after, actor: actor.user.uid, operation: api.operation }));
}

describe('retention', () => {
  it('ends what is stored after 7, 30 and 90 days by tier, and keeps the rest readable', async () => {
    const startedAt = new Date(clock.nowMs());
    const first: Record<string, string> = {};
    const later: Record<string, string> = {};
    for (const tenant of ['acme', 'globex', 'initech']) first[tenant] = (await call(harness, { tenant, text: `first of ${tenant}` })).requestId;
    movedMs += 5 * DAY_MS;
    for (const tenant of ['acme', 'globex', 'initech']) later[tenant] = (await call(harness, { tenant, text: `later of ${tenant}` })).requestId;
    const ends: [string, number][] = [['acme', 7], ['globex', 30], ['initech', 90]];
    const start = movedMs - 5 * DAY_MS;
    for (const [tenant, days] of ends) {
      movedMs = start + days * DAY_MS; // its last day
      await runRetention();
      expect([tenant, await status(harness, first[tenant]!, tenant)]).toEqual([tenant, 200]);
      const epochs = await readdir(folder);
      movedMs = start + (days + 1) * DAY_MS;
      const { complete, summary: { payloads } } = await runRetention();
      expect({ complete, ...payloads }).toMatchObject({ complete: true, rows: 2, data_keys: 1, epochs: 1, failures: 0 });
      expect([tenant, await status(harness, first[tenant]!, tenant)]).toEqual([tenant, 404]);
      expect(await count(harness, 'payloads', `request_id = '${first[tenant]!}'`)).toBe(0);
      // Its data key of five days later moved to a new epoch; the old root is no more.
      expect(await stored(harness, later[tenant]!, tenant)).toMatchObject({ prompt: expect.stringContaining(`later of ${tenant}`) });
      const epochsNow = await readdir(folder);
      expect([epochs.filter((name) => !epochsNow.includes(name)).length, epochsNow.filter((name) => !epochs.includes(name)).length]).toEqual([1, 1]);
      for (const [other] of ends.filter(([, otherDays]) => otherDays > days)) expect([other, await status(harness, first[other]!, other)]).toEqual([other, 200]);
    }
    // Nobody keeps the first day any more: it went as a whole.
    expect(await partitionsBefore(firstKeptDay(clock.nowMs(), 90))).toEqual([]);
    expect(await count(harness, 'payloads')).toBe(2); // initech’s of five days later
    const [acmeKeys, acmeEpochs, partitions] = await Promise.all([receipts('acme', 'payload_data_key', startedAt), receipts('acme', 'payload_epoch', startedAt), receipts('platform', 'payload_partition', startedAt)]);
    expect(acmeKeys[0]).toMatchObject({ activity: 4, actor: 'system', operation: 'retention', before: { day: startedAt.toISOString().slice(0, 10), rows: 2 } });
    expect(acmeEpochs.map(({ after }) => (after as { state: string }).state).slice(0, 4)).toEqual(['current', 'current', 'retired', 'destroyed']);
    expect(partitions).toContainEqual(expect.objectContaining({ id: `payloads_${startedAt.toISOString().slice(0, 10).replaceAll('-', '')}`, before: { day: startedAt.toISOString().slice(0, 10), rows: 2 } }));
  });

  it('follows a change of tier at the next run, either way', async () => {
    const { requestId } = await call(harness);
    await setTier(harness, 'enterprise');
    movedMs += 8 * DAY_MS;
    await runRetention();
    expect(await status(harness, requestId)).toBe(200);
    await setTier(harness, 'standard');
    await runRetention();
    expect(await status(harness, requestId)).toBe(404);
  });

  it('leaves nothing that a backup of the database could open', async () => {
    const { requestId } = await call(harness);
    expect(await status(harness, requestId)).toBe(200);
    const tables = ['payload_epochs', 'payload_data_keys', 'payloads'];
    const backup: string[] = [];
    for (const table of tables) backup.push((await harness.db.query<{ rows: string }>(`SELECT json_agg(t)::text AS rows FROM ${table} t`)).rows[0]!.rows);
    movedMs += 8 * DAY_MS;
    await runRetention();
    expect(await status(harness, requestId)).toBe(404);
    for (const table of tables.toReversed()) await harness.db.query(`DELETE FROM ${table}`);
    for (const [index, table] of tables.entries()) {
      if (table === 'payloads') await harness.db.query("SELECT payloads_ensure_partition((r->>'day')::date) FROM json_array_elements($1::json) AS r", [backup[index]]);
      await harness.db.query(`INSERT INTO ${table} SELECT * FROM json_populate_recordset(NULL::${table}, $1)`, [backup[index]]);
    }
    expect(await count(harness, 'payloads', `request_id = '${requestId}'`)).toBe(2);
    expect(await count(harness, 'payload_epochs', 'sealed_private IS NOT NULL AND destroyed_at IS NULL')).toBe(1);
    await expectError(await read(harness, requestId, await auditor(harness)), 404, 'not_found');
    // What is stored from now on is for an epoch that can be opened, once the lost one is replaced.
    await rotate(harness);
    movedMs += DAY_MS;
    expect(await status(harness, (await call(harness)).requestId)).toBe(200);
  });

  it('does not touch what is stored where a root cannot be destroyed, says so, and does it the next time', async () => {
    const { requestId } = await call(harness);
    const { rows: [epoch] } = await harness.db.query<{ id: string }>("SELECT id FROM payload_epochs WHERE tenant_id = 'acme'");
    movedMs += 8 * DAY_MS;
    await harness.gateway.parts.vault.epochs.rotate('acme', firstKeptDay(clock.nowMs(), 7)); // and there the process died
    const path = join(folder, `${epoch!.id}.root`);
    const root = await readFile(path);
    await unlink(path);
    await mkdir(path); // the disk refuses
    const failed = await runRetention();
    expect(failed).toMatchObject({ complete: false, summary: { payloads: { rows: 0, data_keys: 0, epochs: 0, failures: 1 } } });
    expect(await count(harness, 'payloads')).toBe(2);
    expect(await count(harness, 'payload_epochs', 'destroyed_at IS NOT NULL')).toBe(0);
    await rmdir(`${path}.doomed`);
    await writeFile(path, root);
    expect(await runRetention()).toMatchObject({ complete: true, summary: { payloads: { rows: 2, data_keys: 1, epochs: 1, failures: 0 } } });
    expect(await status(harness, requestId)).toBe(404);
    expect((await readdir(folder)).includes(`${epoch!.id}.root`)).toBe(false);
  });

  it.each([
    ['a new epoch was made and the old one retired', async (tenant: string) => void (await harness.gateway.parts.vault.epochs.rotate(tenant, firstKeptDay(clock.nowMs(), 7)))],
    ['the root was destroyed, but that was not noted', async (tenant: string) => {
      const { rows: [epoch] } = await harness.db.query<{ id: string }>('SELECT id FROM payload_epochs WHERE tenant_id = $1', [tenant]);
      await harness.gateway.parts.vault.epochs.rotate(tenant, firstKeptDay(clock.nowMs(), 7));
      await unlink(join(folder, `${epoch!.id}.root`));
    }],
    ['the epoch was destroyed, and nothing was deleted', async (tenant: string) => {
      await harness.gateway.parts.vault.epochs.rotate(tenant, firstKeptDay(clock.nowMs(), 7));
      await harness.gateway.parts.vault.epochs.destroyRetired(tenant);
    }],
    ['texts were deleted, but not their key', async (tenant: string) => {
      await harness.gateway.parts.vault.epochs.rotate(tenant, firstKeptDay(clock.nowMs(), 7));
      await harness.gateway.parts.vault.epochs.destroyRetired(tenant);
      await harness.db.query("DELETE FROM payloads WHERE tenant_id = $1 AND purpose = 'answer' AND data_key_id = (SELECT id FROM payload_data_keys WHERE tenant_id = $1 ORDER BY day LIMIT 1)", [tenant]);
    }],
  ])('is finished by the next run where it died after %s', async (_, untilDeath) => {
    const { requestId: old } = await call(harness);
    movedMs += 5 * DAY_MS;
    const { requestId: young } = await call(harness, { text: 'still young' });
    movedMs += 3 * DAY_MS;
    await untilDeath('acme');
    expect(await runRetention()).toMatchObject({ complete: true, summary: { payloads: { data_keys: 1, failures: 0 } } });
    expect(await status(harness, old)).toBe(404);
    expect((await stored(harness, young))['prompt']).toContain('still young');
    expect([await count(harness, 'payloads'), await count(harness, 'payload_data_keys'), await count(harness, 'payload_epochs', 'retired_at IS NOT NULL AND destroyed_at IS NULL')]).toEqual([2, 1, 0]);
    expect(await runRetention()).toMatchObject({ complete: true, summary: { payloads: { rows: 0, data_keys: 0, epochs: 0 } } });
  });

  it('is told by tier, with its last run, to auditors; and run by the platform alone, one at a time', async () => {
    const run = await runRetention();
    const response = await harness.request('GET', '/admin/v1/retention', { token: await auditor(harness) });
    expect(await response.json()).toEqual({
      tiers: { standard: { payload_retention_days: 7 }, enterprise: { payload_retention_days: 30 }, government: { payload_retention_days: 90 } }, last_run: run,
    });
    for (const path of ['retention:run', 'payload-keys/acme:rotate']) await expectError(await harness.request('POST', `/admin/v1/${path}`, { token: await auditor(harness, 'acme', ['tenant-admin', 'auditor']) }), 403, 'policy_denied');
    const other = await harness.db.connect();
    try {
      await other.query('SELECT pg_advisory_lock(7204115006)');
      await expectError(await harness.request('POST', '/admin/v1/retention:run', { token: await admin(harness) }), 503, 'overloaded');
    } finally {
      await other.query('SELECT pg_advisory_unlock(7204115006)');
      other.release();
    }
    await runRetention();
  });
});

describe('the daily job', () => {
  it('runs once a day, again where something was left undone, and one step’s failure keeps no other from being run', async () => {
    const pool = new Pool({ connectionString: harness.databaseUrl, max: 3 });
    await pool.query('DELETE FROM retention_runs');
    const runs: string[] = [];
    let failing = true;
    const steps: RetentionStep[] = [
      { name: 'first', run: async () => {
        runs.push('first');
        if (failing) throw new Error('not now');
        return { rows: 1 };
      } },
      { name: 'second', run: async () => ({ leaves: runs.push('second') }) },
    ];
    const once = async (): Promise<void> => {
      const retention = new Retention(pool, steps, clock, pino({ level: 'silent' }), new Registry());
      retention.start(0);
      await new Promise((resolve) => setTimeout(resolve, 150));
      await retention.close();
    };
    await once();
    expect(runs).toEqual(['first', 'second']);
    expect((await pool.query('SELECT complete, summary FROM retention_runs')).rows).toEqual([{ complete: false, summary: { first: { failures: 1 }, second: { leaves: 2 } } }]);
    failing = false;
    await once();
    await once();
    expect(runs).toHaveLength(4);
    movedMs += DAY_MS;
    await once();
    expect(runs).toHaveLength(6);
    await pool.end();
  });
});
