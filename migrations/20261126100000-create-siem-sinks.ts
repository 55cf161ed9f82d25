import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Where the audit log is exported to, how far each of these places has acknowledged it, and what could not be delivered. */
export class CreateSiemSinks20261126100000 implements MigrationInterface {
  readonly name = 'CreateSiemSinks20261126100000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE siem_sinks (
        id uuid PRIMARY KEY,
        name text NOT NULL CONSTRAINT siem_sinks_name UNIQUE,
        type text NOT NULL CHECK (type IN ('hec', 'otlp', 'syslog', 'file')),
        url text NOT NULL,
        sealed_token text,
        ca text,
        enabled boolean NOT NULL,
        -- Index of the first event that is not acknowledged yet. Moves only by an update that names where it stood.
        cursor bigint NOT NULL CHECK (cursor >= 0),
        -- All that ever were; the table of them is bounded.
        parked bigint NOT NULL DEFAULT 0,
        last_error text,
        last_delivered_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
      );

      CREATE TABLE siem_parked (
        id uuid PRIMARY KEY,
        sink uuid NOT NULL REFERENCES siem_sinks ON DELETE CASCADE,
        first_index bigint NOT NULL,
        last_index bigint NOT NULL CHECK (last_index >= first_index),
        -- Fewer than the range holds, where a receiver says how many it rejected but not which.
        events bigint NOT NULL CHECK (events BETWEEN 1 AND last_index - first_index + 1),
        reason text NOT NULL,
        at timestamptz NOT NULL DEFAULT now()
      );
      -- For the list of one sink, for its bound, and for the foreign key.
      CREATE INDEX siem_parked_sink ON siem_parked (sink, id);
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
