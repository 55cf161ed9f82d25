import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * The charges that finance may have to correct, found without a scan of all; corrections booked where the call was; how far an alert has been told to the
 * webhook; results of idempotent calls kept beside the commit.
 */
export class AddReconciliation20261125000000 implements MigrationInterface {
  readonly name = 'AddReconciliation20261125000000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE INDEX settlements_uncertain ON settlements (hold_id) WHERE state = 'expired_charged' OR (state = 'settled' AND basis IN ('observed', 'hold'));

      -- The team outlives its hold, so that a correction is booked where the charge was: in that team, and in the minute in which the call ended.
      ALTER TABLE settlements ADD COLUMN team text NOT NULL DEFAULT '';
      DO $$
      DECLARE
        body text := pg_get_functiondef('ledger_apply'::regproc);
        change text[];
      BEGIN
        FOREACH change SLICE 1 IN ARRAY ARRAY[
          -- A charge whose budgets are all gone has none to book in.
          ['array_length(op.budget_ids, 1)', 'cardinality(op.budget_ids)'],
          ['subject, model,', 'team, subject, model,'],
          ['g.context->>''sub'', g.context->>''model''', 'coalesce(g.context->>''team'', ''''), g.context->>''sub'', g.context->>''model'''],
          ['reasoning_tokens = u.reasoning_tokens, finished_at = at', 'reasoning_tokens = u.reasoning_tokens']]
        LOOP
          IF position(change[1] IN body) = 0 THEN
            RAISE EXCEPTION 'ledger_apply has no %', change[1];
          END IF;
          body := replace(body, change[1], change[2]);
        END LOOP;
        EXECUTE body;
      END $$;
      CREATE OR REPLACE FUNCTION usage_correct() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO usage_minutes AS m (start, tenant_id, team, model, deployment, calls, input_tokens, cached_tokens, output_tokens, cost_ticks)
          SELECT date_trunc('minute', n.finished_at), n.tenant_id, n.team, n.model, n.deployment, 0, sum(coalesce(n.input_tokens, 0) - coalesce(o.input_tokens, 0)),
            sum(coalesce(n.cached_input_tokens, 0) - coalesce(o.cached_input_tokens, 0)),
            sum(coalesce(n.output_tokens, 0) + coalesce(n.reasoning_tokens, 0) - coalesce(o.output_tokens, 0) - coalesce(o.reasoning_tokens, 0)), sum(n.charged_ticks - o.charged_ticks)
          FROM changed n JOIN was o ON o.hold_id = n.hold_id
          WHERE (n.charged_ticks, n.input_tokens, n.cached_input_tokens, n.output_tokens, n.reasoning_tokens)
            IS DISTINCT FROM (o.charged_ticks, o.input_tokens, o.cached_input_tokens, o.output_tokens, o.reasoning_tokens)
          GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
          ON CONFLICT (start, tenant_id, team, model, deployment) DO UPDATE SET input_tokens = m.input_tokens + excluded.input_tokens,
            cached_tokens = m.cached_tokens + excluded.cached_tokens, output_tokens = m.output_tokens + excluded.output_tokens, cost_ticks = m.cost_ticks + excluded.cost_ticks;
        RETURN NULL;
      END $$;

      -- Entries: k 'admit' | 'finish' | 'drop', t, h, rq, s status. 'admit' goes with a claim: without the call there is none. Results are put there beforehand.
      CREATE OR REPLACE FUNCTION idempotency_finish(verdicts smallint[], entries json) RETURNS smallint[] LANGUAGE plpgsql VOLATILE AS $$
      BEGIN
        IF json_array_length(entries) = 0 THEN
          RETURN verdicts;
        END IF;
        DELETE FROM idempotency_keys k USING json_to_recordset(entries) AS e(i int, k text, t text, h text, rq uuid)
          WHERE ((e.k = 'admit' AND verdicts[e.i + 1] <> 0) OR (e.k = 'drop' AND verdicts[e.i + 1] = 0)) AND k.tenant_id = e.t AND k.key_hash = decode(e.h, 'hex') AND k.request_id = e.rq;
        UPDATE idempotency_keys k SET status = e.s FROM json_to_recordset(entries) AS e(i int, k text, t text, h text, rq uuid, s smallint)
          WHERE e.k = 'finish' AND verdicts[e.i + 1] = 0 AND k.tenant_id = e.t AND k.key_hash = decode(e.h, 'hex') AND k.request_id = e.rq;
        RETURN verdicts;
      END $$;

      -- Null: nothing; then the state that was told last.
      ALTER TABLE alerts ADD COLUMN told_state text CHECK (told_state IN ('firing', 'resolved'));
      CREATE INDEX alerts_firing ON alerts (type, subject) WHERE state = 'firing';
      CREATE INDEX alerts_untold ON alerts (id) WHERE told_state IS DISTINCT FROM state;
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
