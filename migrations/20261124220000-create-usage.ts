import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * Usage by minute, rolled up in the commit that settles a call: no report ever scans calls. Prices by model and time. Alerts, each once per crossing and
 * period.
 */
export class CreateUsage20261124220000 implements MigrationInterface {
  readonly name = 'CreateUsage20261124220000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE usage_minutes (
        start timestamptz NOT NULL,
        tenant_id text NOT NULL,
        team text NOT NULL,
        model text NOT NULL,
        deployment text NOT NULL,
        calls bigint NOT NULL,
        input_tokens bigint NOT NULL,
        cached_tokens bigint NOT NULL,
        output_tokens bigint NOT NULL,
        cost_ticks bigint NOT NULL,
        PRIMARY KEY (start, tenant_id, team, model, deployment)
      );
      CREATE INDEX usage_minutes_tenant ON usage_minutes (tenant_id, start);

      -- A hold that goes has become a settlement. Rows in a fixed order, so that no two batches wait for each other in a circle.
      -- Reasoning is output. An attempt that came to nothing costs, and is no call of its own; a call that was never sent is none at all.
      CREATE FUNCTION usage_roll_up() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO usage_minutes AS m (start, tenant_id, team, model, deployment, calls, input_tokens, cached_tokens, output_tokens, cost_ticks)
          SELECT date_trunc('minute', s.finished_at), s.tenant_id, coalesce(g.context->>'team', ''), s.model, s.deployment,
            count(*) FILTER (WHERE g.context->>'lost_attempt' IS NULL), coalesce(sum(s.input_tokens), 0), coalesce(sum(s.cached_input_tokens), 0),
            coalesce(sum(s.output_tokens), 0) + coalesce(sum(s.reasoning_tokens), 0), sum(s.charged_ticks)
          FROM gone g JOIN settlements s ON s.hold_id = g.id WHERE s.state <> 'released'
          GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
          ON CONFLICT (start, tenant_id, team, model, deployment) DO UPDATE SET calls = m.calls + excluded.calls, input_tokens = m.input_tokens + excluded.input_tokens,
            cached_tokens = m.cached_tokens + excluded.cached_tokens, output_tokens = m.output_tokens + excluded.output_tokens, cost_ticks = m.cost_ticks + excluded.cost_ticks;
        RETURN NULL;
      END $$;
      CREATE TRIGGER usage_roll_up AFTER DELETE ON holds REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION usage_roll_up();

      -- A correction changes what a settled call cost and used: the difference is booked where the call was.
      CREATE FUNCTION usage_correct() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO usage_minutes AS m (start, tenant_id, team, model, deployment, calls, input_tokens, cached_tokens, output_tokens, cost_ticks)
          SELECT date_trunc('minute', n.finished_at), n.tenant_id, '', n.model, n.deployment, 0, sum(coalesce(n.input_tokens, 0) - coalesce(o.input_tokens, 0)),
            sum(coalesce(n.cached_input_tokens, 0) - coalesce(o.cached_input_tokens, 0)),
            sum(coalesce(n.output_tokens, 0) + coalesce(n.reasoning_tokens, 0) - coalesce(o.output_tokens, 0) - coalesce(o.reasoning_tokens, 0)), sum(n.charged_ticks - o.charged_ticks)
          FROM changed n JOIN was o ON o.hold_id = n.hold_id GROUP BY 1, 2, 4, 5 ORDER BY 1, 2, 4, 5
          ON CONFLICT (start, tenant_id, team, model, deployment) DO UPDATE SET input_tokens = m.input_tokens + excluded.input_tokens,
            cached_tokens = m.cached_tokens + excluded.cached_tokens, output_tokens = m.output_tokens + excluded.output_tokens, cost_ticks = m.cost_ticks + excluded.cost_ticks;
        RETURN NULL;
      END $$;
      CREATE TRIGGER usage_correct AFTER UPDATE ON settlements REFERENCING OLD TABLE AS was NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION usage_correct();

      -- Those few whose charge may still be corrected.
      CREATE INDEX settlements_expired ON settlements (hold_id) WHERE state = 'expired_charged';

      CREATE TABLE price_revisions (
        revision bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        model text NOT NULL,
        source text NOT NULL CHECK (source IN ('admin', 'provider')),
        -- Null: from here on the source says nothing of the model.
        price jsonb,
        effective_at timestamptz NOT NULL DEFAULT now()
      );
      CREATE INDEX price_revisions_model ON price_revisions (model, source, revision DESC);

      CREATE TABLE alerts (
        id uuid PRIMARY KEY,
        type text NOT NULL,
        tenant_id text,
        subject text NOT NULL,
        -- Names the crossing and the period, so that there is one alert for it, whichever replica sees it first.
        occasion text NOT NULL UNIQUE,
        state text NOT NULL CHECK (state IN ('firing', 'resolved')),
        value text NOT NULL,
        fired_at timestamptz NOT NULL DEFAULT now(),
        resolved_at timestamptz
      );
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
