import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * Idempotency keys, claimed in the commit that admits a call and finished in the one that settles it: two participants of the journal, the first and the
 * last, so that a call which the ledger refuses leaves no claim.
 */
export class CreateIdempotency20261124210000 implements MigrationInterface {
  readonly name = 'CreateIdempotency20261124210000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE idempotency_keys (
        tenant_id text NOT NULL,
        key_hash bytea NOT NULL,
        request_id uuid NOT NULL,
        body_hash bytea NOT NULL,
        -- Null while the call is under way.
        status smallint,
        -- Sealed; null where there is nothing that could be answered again.
        result bytea,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (tenant_id, key_hash)
      );
      CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);

      -- What results are sealed with, one a tenant and day; gone soon after the last of them.
      CREATE TABLE replay_keys (
        tenant_id text NOT NULL,
        day date NOT NULL,
        key bytea NOT NULL CHECK (octet_length(key) = 32),
        PRIMARY KEY (tenant_id, day)
      );

      -- Entries: t tenant, h hash of the key, rq request, b hash of the body, x expires at. Verdict 6: somebody has the key.
      CREATE FUNCTION idempotency_claim(verdicts smallint[], entries json) RETURNS smallint[] LANGUAGE plpgsql VOLATILE AS $$
      DECLARE
        won uuid[];
      BEGIN
        IF json_array_length(entries) = 0 THEN
          RETURN verdicts;
        END IF;
        DELETE FROM idempotency_keys k USING json_to_recordset(entries) AS e(t text, h text)
          WHERE k.tenant_id = e.t AND k.key_hash = decode(e.h, 'hex') AND k.expires_at <= now();
        WITH claimed AS (
          INSERT INTO idempotency_keys (tenant_id, key_hash, request_id, body_hash, expires_at)
            SELECT e.t, decode(e.h, 'hex'), e.rq, decode(e.b, 'hex'), e.x FROM json_to_recordset(entries) AS e(i int, t text, h text, rq uuid, b text, x timestamptz) ORDER BY e.t, e.h, e.i
            ON CONFLICT (tenant_id, key_hash) DO NOTHING RETURNING request_id
        )
        SELECT array_agg(request_id) INTO won FROM claimed;
        SELECT array_agg(CASE WHEN v.verdict = 0 AND e.rq IS NOT NULL AND NOT (e.rq = ANY (coalesce(won, '{}'))) THEN 6::smallint ELSE v.verdict END ORDER BY v.n) INTO verdicts
          FROM unnest(verdicts) WITH ORDINALITY AS v(verdict, n) LEFT JOIN json_to_recordset(entries) AS e(i int, rq uuid) ON e.i + 1 = v.n;
        RETURN verdicts;
      END $$;

      -- Entries: k 'admit' | 'finish' | 'drop', t, h, rq, s status, r result in base64. 'admit' goes with a claim: without the call there is none.
      CREATE FUNCTION idempotency_finish(verdicts smallint[], entries json) RETURNS smallint[] LANGUAGE plpgsql VOLATILE AS $$
      BEGIN
        IF json_array_length(entries) = 0 THEN
          RETURN verdicts;
        END IF;
        DELETE FROM idempotency_keys k USING json_to_recordset(entries) AS e(i int, k text, t text, h text, rq uuid)
          WHERE ((e.k = 'admit' AND verdicts[e.i + 1] <> 0) OR (e.k = 'drop' AND verdicts[e.i + 1] = 0)) AND k.tenant_id = e.t AND k.key_hash = decode(e.h, 'hex') AND k.request_id = e.rq;
        UPDATE idempotency_keys k SET status = e.s, result = decode(e.r, 'base64')
          FROM json_to_recordset(entries) AS e(i int, k text, t text, h text, rq uuid, s smallint, r text)
          WHERE e.k = 'finish' AND verdicts[e.i + 1] = 0 AND k.tenant_id = e.t AND k.key_hash = decode(e.h, 'hex') AND k.request_id = e.rq;
        RETURN verdicts;
      END $$;
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
