import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Tenants, their budgets, and the ledger of holds and settlements. Money is USD ticks, 10^10 a dollar. */
export class CreateLedger20261124100200 implements MigrationInterface {
  readonly name = 'CreateLedger20261124100200';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE tenants (
        id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
        name text NOT NULL,
        tier text NOT NULL CHECK (tier IN ('standard', 'enterprise', 'government')),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
      );
      INSERT INTO tenants (id, name, tier) VALUES ('platform', 'Platform', 'standard');

      -- scope is 'tenant' or '<type>:<id>'. Every budget whose scope matches a call must have room for it.
      CREATE TABLE budgets (
        id uuid PRIMARY KEY,
        tenant_id text NOT NULL REFERENCES tenants (id),
        scope text NOT NULL CHECK (scope = 'tenant' OR scope ~ '^(team|user|key|model):.+$'),
        time_window text NOT NULL CHECK (time_window IN ('day', 'month', 'total')),
        limit_ticks bigint NOT NULL CHECK (limit_ticks >= 0),
        warn_at text[] NOT NULL DEFAULT '{}',
        period_start timestamptz NOT NULL,
        period_end timestamptz,
        spent_ticks bigint NOT NULL DEFAULT 0,
        held_ticks bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (tenant_id, scope, time_window),
        CHECK ((time_window = 'total') = (period_end IS NULL))
      ) WITH (fillfactor = 50); -- room for in-page updates: this is the hottest row of a tenant

      CREATE TABLE budget_periods (
        budget_id uuid NOT NULL REFERENCES budgets (id),
        period_start timestamptz NOT NULL,
        period_end timestamptz NOT NULL,
        spent_ticks bigint NOT NULL,
        PRIMARY KEY (budget_id, period_start)
      );

      -- Calls under way, and only those: small, and written at both ends of every call. What is resolved moves to settlements.
      CREATE TABLE holds (
        id uuid PRIMARY KEY,
        request_id uuid NOT NULL,
        tenant_id text NOT NULL,
        replica_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('held', 'sent')),
        budget_ids uuid[] NOT NULL,
        amount_ticks bigint NOT NULL CHECK (amount_ticks >= 0),
        -- What an outcome needs to say of the call when its process can no longer say it.
        context jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL
      );

      -- One row a finished call: what was held, used and charged. Ids grow with time, so every index grows at its end.
      CREATE TABLE settlements (
        hold_id uuid PRIMARY KEY,
        request_id uuid NOT NULL,
        tenant_id text NOT NULL,
        replica_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('settled', 'released', 'expired_charged')),
        budget_ids uuid[] NOT NULL,
        held_ticks bigint NOT NULL,
        charged_ticks bigint NOT NULL,
        basis text NOT NULL,
        provider_ticks bigint,
        computed_ticks bigint,
        subject text NOT NULL,
        model text NOT NULL,
        upstream_model text NOT NULL,
        deployment text NOT NULL,
        stream boolean NOT NULL,
        outcome text NOT NULL,
        input_tokens bigint,
        cached_input_tokens bigint,
        output_tokens bigint,
        reasoning_tokens bigint,
        started_at timestamptz NOT NULL,
        finished_at timestamptz NOT NULL
      );
      CREATE INDEX settlements_request ON settlements (request_id);

      -- First instant after the period that contains the given one, in UTC; null for 'total'.
      CREATE FUNCTION budget_period_end(time_window text, at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
        SELECT CASE time_window
          WHEN 'day' THEN (date_trunc('day', at AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC'
          WHEN 'month' THEN (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
        END $$;
      CREATE FUNCTION budget_period_start(time_window text, at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
        SELECT CASE time_window
          WHEN 'day' THEN date_trunc('day', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
          WHEN 'month' THEN date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
          ELSE at
        END $$;

      -- Closes the periods that are over. Holds stay held: they are charged to the period in which they are settled, for which they already have room.
      CREATE FUNCTION budgets_roll(ids uuid[], at timestamptz) RETURNS void LANGUAGE sql VOLATILE AS $$
        WITH over AS (
          UPDATE budgets b SET spent_ticks = 0, period_start = budget_period_start(b.time_window, at),
            period_end = budget_period_end(b.time_window, at), updated_at = at
          FROM (SELECT id, period_start, period_end, spent_ticks FROM budgets WHERE id = ANY (ids) AND period_end <= at) before
          WHERE b.id = before.id
          RETURNING before.id, before.period_start, before.period_end, before.spent_ticks
        )
        INSERT INTO budget_periods (budget_id, period_start, period_end, spent_ticks)
          SELECT id, period_start, period_end, spent_ticks FROM over
      $$;

      -- An entry of the ledger, by operation i:
      --   hold:    k 'hold', id, rq request, t tenant, s scopes joined by chr(31), a ticks, rp replica, x expires at, c context
      --   settle:  k 'settle' | 'release' | 'expire' | 'correct', id, a ticks to charge, u usage
      -- "correct" replaces the charge of a hold that the sweeper had charged; the others resolve an open hold. b is filled in here.
      CREATE TYPE ledger_entry AS (i int, k text, id uuid, rq uuid, t text, s text, a bigint, rp uuid, x timestamptz, c jsonb, u json, b uuid[]);
      CREATE TYPE ledger_usage AS (outcome text, basis text, input_tokens bigint, cached_input_tokens bigint, output_tokens bigint, reasoning_tokens bigint,
        provider_ticks bigint, computed_ticks bigint);

      -- The ledger's part of a batch.
      -- Verdicts: 1 no room in a budget, 2 no budget at all, 3 late (the sweeper has charged the hold: correct it instead),
      --           4 already resolved, 5 unknown hold. With any of them the operation has done nothing.
      -- All budgets are locked first, in the order of their ids, so that no two batches wait for each other in a circle; whoever has the budgets of
      -- a hold has the hold.
      CREATE FUNCTION ledger_apply(verdicts smallint[], entries json) RETURNS smallint[] LANGUAGE plpgsql VOLATILE
      -- Plans are made once: these tables are read by key, however small they look to the planner on the first day.
      SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
      DECLARE
        at timestamptz := clock_timestamp();
        ops ledger_entry[];
        ids uuid[];
        tenants text[];
        scopes text[];
        room bigint[];
        overdue boolean;
        d_held bigint[];
        d_spent bigint[];
        op record;
        slot int;
        fits boolean;
        resolved uuid[] := '{}';
        holds_granted boolean := false;
      BEGIN
        SELECT array_agg(e) INTO ops FROM json_populate_recordset(NULL::ledger_entry, entries) e;
        IF ops IS NULL THEN
          RETURN verdicts;
        END IF;

        SELECT array_agg(l.id), array_agg(l.tenant_id), array_agg(l.scope), array_agg(l.limit_ticks - l.spent_ticks - l.held_ticks), bool_or(l.period_end <= at)
          INTO ids, tenants, scopes, room, overdue
          FROM (
            SELECT b.* FROM budgets b WHERE b.id IN (
              SELECT m.id FROM (SELECT DISTINCT e.t, e.s FROM unnest(ops) e WHERE e.k = 'hold') o
                JOIN budgets m ON m.tenant_id = o.t AND m.scope = ANY (string_to_array(o.s, chr(31)))
              UNION
              SELECT unnest(h.budget_ids) FROM unnest(ops) e JOIN holds h ON h.id = e.id WHERE e.k <> 'hold'
              UNION
              SELECT unnest(r.budget_ids) FROM unnest(ops) e JOIN settlements r ON r.hold_id = e.id WHERE e.k = 'correct')
            ORDER BY b.id FOR UPDATE
          ) l;
        IF overdue THEN
          PERFORM budgets_roll(ids, at);
          SELECT array_agg(b.limit_ticks - b.spent_ticks - b.held_ticks ORDER BY b.id) INTO room FROM budgets b WHERE b.id = ANY (ids);
        END IF;
        d_held := array_fill(0::bigint, ARRAY[coalesce(array_length(ids, 1), 0)]);
        d_spent := d_held;

        FOR op IN
          SELECT e.n, e.i, e.k, e.id, e.a, h.amount_ticks AS held, r.state AS resolved_as, r.charged_ticks AS charged,
            coalesce(m.ids, h.budget_ids, r.budget_ids) AS budget_ids
          FROM unnest(ops) WITH ORDINALITY AS e(i, k, id, rq, t, s, a, rp, x, c, u, b, n)
            LEFT JOIN holds h ON e.k <> 'hold' AND h.id = e.id
            LEFT JOIN settlements r ON e.k <> 'hold' AND h.id IS NULL AND r.hold_id = e.id
            LEFT JOIN (
              SELECT o.t, o.s, array_agg(l.id) AS ids
                FROM (SELECT DISTINCT e.t, e.s FROM unnest(ops) e WHERE e.k = 'hold') o
                  JOIN unnest(ids, tenants, scopes) AS l(id, tenant, scope) ON l.tenant = o.t AND l.scope = ANY (string_to_array(o.s, chr(31)))
                GROUP BY o.t, o.s
            ) m ON m.t = e.t AND m.s = e.s
          ORDER BY e.n
        LOOP
          IF verdicts[op.i + 1] <> 0 THEN
            CONTINUE;
          END IF;
          IF op.k = 'hold' THEN
            IF op.budget_ids IS NULL THEN
              verdicts[op.i + 1] := 2;
              CONTINUE;
            END IF;
            fits := true;
            FOR n IN 1 .. array_length(op.budget_ids, 1) LOOP
              fits := fits AND room[array_position(ids, op.budget_ids[n])] >= op.a;
            END LOOP;
            IF NOT fits THEN
              verdicts[op.i + 1] := 1;
              CONTINUE;
            END IF;
            FOR n IN 1 .. array_length(op.budget_ids, 1) LOOP
              slot := array_position(ids, op.budget_ids[n]);
              room[slot] := room[slot] - op.a;
              d_held[slot] := d_held[slot] + op.a;
            END LOOP;
            ops[op.n].b := op.budget_ids;
            holds_granted := true;
          ELSIF op.held IS NULL AND op.resolved_as IS NULL THEN
            verdicts[op.i + 1] := 5;
          ELSIF op.resolved_as = 'expired_charged' AND op.k IN ('settle', 'release') THEN
            verdicts[op.i + 1] := 3;
          ELSIF (op.held IS NULL) <> (op.k = 'correct') OR op.resolved_as IN ('settled', 'released') OR op.id = ANY (resolved) THEN
            verdicts[op.i + 1] := 4;
          ELSE
            FOR n IN 1 .. array_length(op.budget_ids, 1) LOOP
              slot := array_position(ids, op.budget_ids[n]);
              d_held[slot] := d_held[slot] - coalesce(op.held, 0);
              d_spent[slot] := d_spent[slot] + op.a - coalesce(op.charged, 0);
            END LOOP;
            resolved := resolved || op.id;
          END IF;
        END LOOP;

        UPDATE budgets b SET held_ticks = b.held_ticks + d.held, spent_ticks = b.spent_ticks + d.spent, updated_at = at
          FROM unnest(ids, d_held, d_spent) AS d(id, held, spent)
          WHERE b.id = d.id AND (d.held <> 0 OR d.spent <> 0);

        IF holds_granted THEN
          INSERT INTO holds (id, request_id, tenant_id, replica_id, state, budget_ids, amount_ticks, context, created_at, expires_at)
            SELECT e.id, e.rq, e.t, e.rp, 'sent', e.b, e.a, e.c, at, e.x FROM unnest(ops) e WHERE e.k = 'hold' AND verdicts[e.i + 1] = 0;
        END IF;

        IF array_length(resolved, 1) > 0 THEN
          WITH gone AS (
            DELETE FROM holds h USING unnest(ops) e WHERE h.id = e.id AND e.k <> 'hold' AND verdicts[e.i + 1] = 0 RETURNING h.*, e.k, e.a, e.u
          )
          INSERT INTO settlements (hold_id, request_id, tenant_id, replica_id, state, budget_ids, held_ticks, charged_ticks, basis, provider_ticks, computed_ticks,
              subject, model, upstream_model, deployment, stream, outcome, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, started_at, finished_at)
            SELECT g.id, g.request_id, g.tenant_id, g.replica_id, CASE g.k WHEN 'release' THEN 'released' WHEN 'expire' THEN 'expired_charged' ELSE 'settled' END,
              g.budget_ids, g.amount_ticks, g.a, u.basis, u.provider_ticks, u.computed_ticks, g.context->>'sub', g.context->>'model', g.context->>'upstream_model',
              g.context->>'deployment', (g.context->>'stream')::boolean, u.outcome, u.input_tokens, u.cached_input_tokens, u.output_tokens, u.reasoning_tokens,
              g.created_at, at
            FROM gone g CROSS JOIN LATERAL json_populate_record(NULL::ledger_usage, g.u) u;
          UPDATE settlements r SET state = 'settled', charged_ticks = e.a, basis = u.basis, provider_ticks = u.provider_ticks, computed_ticks = u.computed_ticks,
              outcome = u.outcome, input_tokens = u.input_tokens, cached_input_tokens = u.cached_input_tokens, output_tokens = u.output_tokens,
              reasoning_tokens = u.reasoning_tokens, finished_at = at
            FROM unnest(ops) e CROSS JOIN LATERAL json_populate_record(NULL::ledger_usage, e.u) u
            WHERE r.hold_id = e.id AND e.k = 'correct' AND verdicts[e.i + 1] = 0;
        END IF;
        RETURN verdicts;
      END $$;
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
