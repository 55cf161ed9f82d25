import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Which responses the provider keeps for which tenant. A participant of the journal, so that an answer and its owner are on record together. */
export class CreateStoredResponses20261124180000 implements MigrationInterface {
  readonly name = 'CreateStoredResponses20261124180000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE stored_responses (
        id text PRIMARY KEY,
        tenant_id text NOT NULL,
        model text NOT NULL,
        deployment text NOT NULL,
        context_tokens bigint NOT NULL CHECK (context_tokens >= 0),
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL
      );
      CREATE INDEX stored_responses_expires_at ON stored_responses (expires_at);

      -- An id that is known already keeps its owner.
      CREATE FUNCTION stored_responses_apply(verdicts smallint[], entries json) RETURNS smallint[] LANGUAGE plpgsql VOLATILE AS $$
      BEGIN
        IF json_array_length(entries) = 0 THEN
          RETURN verdicts;
        END IF;
        INSERT INTO stored_responses (id, tenant_id, model, deployment, context_tokens, expires_at)
          SELECT e.id, e.t, e.m, e.d, e.c, e.x FROM json_to_recordset(entries) AS e(i int, k text, id text, t text, m text, d text, c bigint, x timestamptz)
            WHERE e.k = 'keep' AND verdicts[e.i + 1] = 0
          ON CONFLICT (id) DO NOTHING;
        DELETE FROM stored_responses s USING json_to_recordset(entries) AS e(i int, k text, id text, t text)
          WHERE e.k = 'forget' AND verdicts[e.i + 1] = 0 AND s.id = e.id AND s.tenant_id = e.t;
        RETURN verdicts;
      END $$;
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
