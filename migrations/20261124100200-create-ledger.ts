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

      CREATE TABLE holds (
        id uuid PRIMARY KEY,
        request_id uuid NOT NULL,
        tenant_id text NOT NULL,
        replica_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('held', 'sent', 'settled', 'released', 'expired_charged')),
        budget_ids uuid[] NOT NULL,
        amount_ticks bigint NOT NULL CHECK (amount_ticks >= 0),
        charged_ticks bigint,
        -- What an outcome needs to say of the call when its process can no longer say it.
        context jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL,
        resolved_at timestamptz,
        CHECK ((charged_ticks IS NULL) = (state IN ('held', 'sent')))
      ) WITH (fillfactor = 80);
      CREATE INDEX holds_open ON holds (replica_id, expires_at) WHERE state IN ('held', 'sent');
      CREATE INDEX holds_tenant ON holds (tenant_id, created_at);
      CREATE INDEX holds_request ON holds (request_id);

      -- One row a finished call: what was used and what it cost.
      CREATE TABLE usage_records (
        hold_id uuid PRIMARY KEY REFERENCES holds (id),
        request_id uuid NOT NULL,
        tenant_id text NOT NULL,
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
        charged_ticks bigint NOT NULL,
        provider_ticks bigint,
        computed_ticks bigint,
        basis text NOT NULL,
        started_at timestamptz NOT NULL,
        finished_at timestamptz NOT NULL
      );
      CREATE INDEX usage_records_tenant ON usage_records (tenant_id, started_at);
      CREATE INDEX usage_records_request ON usage_records (request_id);

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

      -- The ledger's part of a batch. Entries, by operation i:
      --   hold:    {"i","k":"hold","id","rq":request,"t":tenant,"s":[scopes],"a":ticks,"rp":replica,"x":expires at,"c":context}
      --   settle:  {"i","k":"settle"|"release"|"expire"|"correct","id","a":ticks to charge,"u":usage record}
      -- "correct" replaces the charge of a hold that the sweeper had charged; the others resolve an open hold.
      -- Verdicts: 1 no room in a budget, 2 no budget at all, 3 late (the sweeper has charged the hold: correct it instead),
      --           4 already resolved, 5 unknown hold. With any of them the operation has done nothing.
      -- All budgets are locked first, in the order of their ids, so that no two batches wait for each other in a circle.
      CREATE FUNCTION ledger_apply(verdicts smallint[], entries jsonb) RETURNS smallint[] LANGUAGE plpgsql VOLATILE AS $$
      DECLARE
        at timestamptz := clock_timestamp();
        ids uuid[];
        room bigint[];
        overdue boolean;
        d_held bigint[];
        d_spent bigint[];
        op record;
        slot int;
        fits boolean;
        granted int[] := '{}';
        s_hold uuid[] := '{}';
        s_state text[] := '{}';
        s_charge bigint[] := '{}';
        s_op int[] := '{}';
      BEGIN
        IF jsonb_array_length(entries) = 0 THEN
          RETURN verdicts;
        END IF;

        SELECT array_agg(locked.id), array_agg(locked.limit_ticks - locked.spent_ticks - locked.held_ticks), bool_or(locked.period_end <= at)
          INTO ids, room, overdue
          FROM (
            SELECT b.* FROM budgets b WHERE b.id IN (
              SELECT m.id FROM jsonb_to_recordset(entries) AS e(k text, t text, s jsonb)
                JOIN budgets m ON m.tenant_id = e.t AND e.s ? m.scope WHERE e.k = 'hold'
              UNION
              SELECT unnest(h.budget_ids) FROM jsonb_to_recordset(entries) AS e(k text, id uuid)
                JOIN holds h ON h.id = e.id WHERE e.k <> 'hold')
            ORDER BY b.id FOR UPDATE
          ) locked;
        IF overdue THEN
          PERFORM budgets_roll(ids, at);
          SELECT array_agg(b.limit_ticks - b.spent_ticks - b.held_ticks ORDER BY b.id) INTO room FROM budgets b WHERE b.id = ANY (ids);
        END IF;
        d_held := array_fill(0::bigint, ARRAY[coalesce(array_length(ids, 1), 0)]);
        d_spent := d_held;

        -- The budgets are locked, so a hold's state can only be changed by us from here on.
        FOR op IN
          SELECT e.i, e.k, e.id, e.a, h.state, h.amount_ticks, h.charged_ticks,
            CASE WHEN e.k = 'hold'
              THEN (SELECT array_agg(array_position(ids, m.id)) FROM budgets m WHERE m.tenant_id = e.t AND e.s ? m.scope AND m.id = ANY (ids))
              ELSE (SELECT array_agg(array_position(ids, b)) FROM unnest(h.budget_ids) b)
            END AS slots
          FROM jsonb_to_recordset(entries) AS e(i int, k text, id uuid, t text, s jsonb, a bigint)
            LEFT JOIN holds h ON e.k <> 'hold' AND h.id = e.id
          ORDER BY e.i
        LOOP
          IF verdicts[op.i + 1] <> 0 THEN
            CONTINUE;
          END IF;
          IF op.k = 'hold' THEN
            IF op.slots IS NULL THEN
              verdicts[op.i + 1] := 2;
              CONTINUE;
            END IF;
            fits := true;
            FOREACH slot IN ARRAY op.slots LOOP
              fits := fits AND room[slot] >= op.a;
            END LOOP;
            IF NOT fits THEN
              verdicts[op.i + 1] := 1;
              CONTINUE;
            END IF;
            FOREACH slot IN ARRAY op.slots LOOP
              room[slot] := room[slot] - op.a;
              d_held[slot] := d_held[slot] + op.a;
            END LOOP;
            granted := granted || op.i;
          ELSIF op.state IS NULL THEN
            verdicts[op.i + 1] := 5;
          ELSIF op.state = 'expired_charged' AND op.k IN ('settle', 'release') THEN
            verdicts[op.i + 1] := 3;
          ELSIF op.id = ANY (s_hold) OR (op.state = 'expired_charged') <> (op.k = 'correct') OR op.state IN ('settled', 'released') THEN
            verdicts[op.i + 1] := 4;
          ELSE
            FOREACH slot IN ARRAY op.slots LOOP
              IF op.k = 'correct' THEN
                d_spent[slot] := d_spent[slot] + op.a - op.charged_ticks;
              ELSE
                d_held[slot] := d_held[slot] - op.amount_ticks;
                d_spent[slot] := d_spent[slot] + op.a;
              END IF;
            END LOOP;
            s_hold := s_hold || op.id;
            s_op := s_op || op.i;
            s_charge := s_charge || op.a;
            s_state := s_state || CASE op.k WHEN 'release' THEN 'released' WHEN 'expire' THEN 'expired_charged' ELSE 'settled' END;
          END IF;
        END LOOP;

        UPDATE budgets b SET held_ticks = b.held_ticks + d.held, spent_ticks = b.spent_ticks + d.spent, updated_at = at
          FROM unnest(ids, d_held, d_spent) AS d(id, held, spent)
          WHERE b.id = d.id AND (d.held <> 0 OR d.spent <> 0);

        IF array_length(granted, 1) > 0 THEN
          INSERT INTO holds (id, request_id, tenant_id, replica_id, state, budget_ids, amount_ticks, context, created_at, expires_at)
            SELECT e.id, e.rq, e.t, e.rp, 'sent',
              (SELECT array_agg(m.id ORDER BY m.id) FROM budgets m WHERE m.tenant_id = e.t AND e.s ? m.scope AND m.id = ANY (ids)), e.a, e.c, at, e.x
            FROM jsonb_to_recordset(entries) AS e(i int, id uuid, rq uuid, t text, s jsonb, a bigint, rp uuid, x timestamptz, c jsonb)
            WHERE e.i = ANY (granted);
        END IF;

        IF array_length(s_hold, 1) > 0 THEN
          UPDATE holds h SET state = s.state, charged_ticks = s.charge, resolved_at = at
            FROM unnest(s_hold, s_state, s_charge) AS s(id, state, charge) WHERE h.id = s.id;
          INSERT INTO usage_records (hold_id, request_id, tenant_id, subject, model, upstream_model, deployment, stream, outcome, input_tokens,
              cached_input_tokens, output_tokens, reasoning_tokens, charged_ticks, provider_ticks, computed_ticks, basis, started_at, finished_at)
            SELECT h.id, h.request_id, h.tenant_id, h.context->>'sub', h.context->>'model', h.context->>'upstream_model', h.context->>'deployment',
              (h.context->>'stream')::boolean, u.outcome, u.input_tokens, u.cached_input_tokens, u.output_tokens, u.reasoning_tokens, s.charge,
              u.provider_ticks, u.computed_ticks, u.basis, h.created_at, at
            FROM unnest(s_op, s_hold, s_charge) AS s(op, id, charge)
              JOIN holds h ON h.id = s.id
              JOIN jsonb_to_recordset(entries) AS e(i int, u jsonb) ON e.i = s.op
              CROSS JOIN LATERAL jsonb_to_record(e.u) AS u(outcome text, input_tokens bigint, cached_input_tokens bigint, output_tokens bigint,
                reasoning_tokens bigint, provider_ticks bigint, computed_ticks bigint, basis text)
            ON CONFLICT (hold_id) DO UPDATE SET outcome = excluded.outcome, input_tokens = excluded.input_tokens,
              cached_input_tokens = excluded.cached_input_tokens, output_tokens = excluded.output_tokens, reasoning_tokens = excluded.reasoning_tokens,
              charged_ticks = excluded.charged_ticks, provider_ticks = excluded.provider_ticks, computed_ticks = excluded.computed_ticks,
              basis = excluded.basis, finished_at = excluded.finished_at;
        END IF;
        RETURN verdicts;
      END $$;
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
