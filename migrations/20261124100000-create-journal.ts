import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * The journal: one SQL statement commits a batch, `journal_seal(batch, f2(f1(zeros, entries1), entries2))`, where each participant is a
 * function from verdicts to verdicts (one smallint per operation, 0 = fine so far). A participant skips operations that an earlier one refused.
 */
export class CreateJournal20261124100000 implements MigrationInterface {
  readonly name = 'CreateJournal20261124100000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE replicas (
        id uuid PRIMARY KEY,
        started_at timestamptz NOT NULL DEFAULT now(),
        last_seen_at timestamptz NOT NULL DEFAULT now(),
        stopped_at timestamptz
      );

      -- verdicts is null where a replica fenced the batch: its COMMIT got lost, and now it can never happen.
      CREATE TABLE journal_batches (
        id uuid PRIMARY KEY,
        verdicts text,
        created_at timestamptz NOT NULL DEFAULT now()
      );
      CREATE INDEX journal_batches_created_at ON journal_batches (created_at);

      CREATE FUNCTION journal_open(operations int) RETURNS smallint[] LANGUAGE sql IMMUTABLE AS
        $$ SELECT array_fill(0::smallint, ARRAY[operations]) $$;

      CREATE FUNCTION journal_seal(batch uuid, verdicts smallint[]) RETURNS text LANGUAGE sql VOLATILE AS
        $$ INSERT INTO journal_batches (id, verdicts) VALUES (batch, array_to_string(verdicts, '')) RETURNING verdicts $$;
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
