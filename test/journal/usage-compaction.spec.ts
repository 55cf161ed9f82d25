import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { UsageCompaction } from '../../src/cost/usage-compaction.ts';
import { startHarness, type Harness } from '../support/harness.ts';
import { createLogger } from '../../src/shared/logger.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness.close();
});
beforeEach(() => harness.db.query('DELETE FROM usage_minutes'));

const add = (start: string, team: string, calls: number): Promise<unknown> =>
  harness.db.query(`INSERT INTO usage_minutes VALUES (date_trunc('day', now(), 'UTC') - ${start}, 'acme', $1, 'grok-beta', 'xai', $2::bigint, $2::bigint * 10, $2::bigint * 2, $2::bigint * 3, $2::bigint * 1000)`, [team, calls]);
const rows = async (): Promise<unknown[]> =>
  (await harness.db.query(`SELECT to_char(start AT TIME ZONE 'UTC', 'HH24:MI') AS at, team, calls::int, input_tokens::int, cached_tokens::int, output_tokens::int, cost_ticks::int FROM usage_minutes ORDER BY start, team`)).rows;
const compaction = (): UsageCompaction => new UsageCompaction(harness.db, createLogger('silent'));

describe('UsageCompaction', () => {
  it('makes hours of old minutes, by team, and leaves young ones', async () => {
    for (const [minutes, team, calls] of [[0, '', 1], [1, '', 2], [59, '', 4], [60, '', 8], [1, 'red', 16]] as const) await add(`interval '10 days' + interval '${minutes} minutes'`, team, calls);
    await add("interval '3 days' + interval '7 minutes'", '', 32);
    expect(await compaction().compact()).toBe(3);
    const row = (at: string, team: string, calls: number): object => ({ at, team, calls, input_tokens: calls * 10, cached_tokens: calls * 2, output_tokens: calls * 3, cost_ticks: calls * 1000 });
    expect(await rows()).toEqual([row('00:00', '', 7), row('00:00', 'red', 16), row('01:00', '', 8), row('00:07', '', 32)]);
    expect(await compaction().compact()).toBe(0);
  });

  it('adds what is corrected later to the same hour', async () => {
    await add("interval '10 days'", '', 5);
    await add("interval '10 days' + interval '30 minutes'", '', 7);
    expect(await compaction().compact()).toBe(1);
    await add("interval '10 days' + interval '30 minutes'", '', -2);
    expect(await compaction().compact()).toBe(1);
    expect(await rows()).toMatchObject([{ at: '00:00', calls: 10 }]);
  });

  it('leaves it to the replica that is at it', async () => {
    await add("interval '10 days' + interval '30 minutes'", '', 7);
    const other = await harness.db.connect();
    try {
      await other.query('BEGIN');
      await other.query('SELECT pg_advisory_xact_lock(7204115004)');
      expect(await compaction().compact()).toBe(0);
      await other.query('ROLLBACK');
      expect(await compaction().compact()).toBe(1);
    } finally {
      other.release();
    }
  });
});
