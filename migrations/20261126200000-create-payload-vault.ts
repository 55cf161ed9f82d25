import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * Stored prompts and answers: what the tenant wants stored, its key epochs, the data keys of its days, and the sealed texts by day. Nothing here opens
 * anything: what opens an epoch's private half is kept outside PostgreSQL.
 */
export class CreatePayloadVault20261126200000 implements MigrationInterface {
  readonly name = 'CreatePayloadVault20261126200000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      ALTER TABLE tenants ADD COLUMN payload_storage text NOT NULL DEFAULT 'off' CHECK (payload_storage IN ('off', 'prompts', 'answers', 'both'));

      -- A tenant's key pair. Retired: no new data key is wrapped for it. Destroyed: nothing opens what is wrapped for it, and the sealed private half is gone.
      CREATE TABLE payload_epochs (
        id uuid PRIMARY KEY,
        tenant_id text NOT NULL REFERENCES tenants (id),
        x25519_public bytea NOT NULL CHECK (octet_length(x25519_public) = 32),
        ml_kem_public bytea NOT NULL CHECK (octet_length(ml_kem_public) = 1184),
        -- Where the root is that opens the private half.
        root_keeper text NOT NULL CHECK (root_keeper IN ('file', 'vault')),
        sealed_private bytea,
        created_at timestamptz NOT NULL,
        retired_at timestamptz,
        destroyed_at timestamptz,
        CHECK (sealed_private IS NOT NULL OR destroyed_at IS NOT NULL),
        CHECK (destroyed_at IS NULL OR retired_at IS NOT NULL)
      );
      CREATE UNIQUE INDEX payload_epochs_current ON payload_epochs (tenant_id) WHERE retired_at IS NULL;
      CREATE INDEX payload_epochs_tenant ON payload_epochs (tenant_id);

      -- Several a tenant and day: each process has its own, since no other can unwrap it.
      CREATE TABLE payload_data_keys (
        id uuid PRIMARY KEY,
        tenant_id text NOT NULL REFERENCES tenants (id),
        day date NOT NULL,
        epoch_id uuid NOT NULL REFERENCES payload_epochs (id),
        wrapped bytea NOT NULL,
        created_at timestamptz NOT NULL
      );
      CREATE INDEX payload_data_keys_epoch ON payload_data_keys (epoch_id);
      CREATE INDEX payload_data_keys_tenant ON payload_data_keys (tenant_id, day);
      CREATE INDEX payload_data_keys_day ON payload_data_keys (day);

      -- By the day of their data key, so that a day that nobody keeps any more is dropped at once.
      CREATE TABLE payloads (
        tenant_id text NOT NULL,
        request_id uuid NOT NULL,
        purpose text NOT NULL CHECK (purpose IN ('prompt', 'answer')),
        day date NOT NULL,
        data_key_id uuid NOT NULL,
        sealed bytea NOT NULL,
        content_type text NOT NULL,
        bytes int NOT NULL CHECK (bytes >= 0),
        created_at timestamptz NOT NULL,
        PRIMARY KEY (request_id, purpose, day)
      ) PARTITION BY RANGE (day);
      -- Ciphertext does not get shorter, so it is not tried.
      ALTER TABLE payloads ALTER COLUMN sealed SET STORAGE EXTERNAL;
      CREATE INDEX payloads_data_key ON payloads (data_key_id);

      -- Attached rather than created in place: that locks out nobody who is storing.
      CREATE FUNCTION payloads_ensure_partition(on_day date) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        partition text := 'payloads_' || to_char(on_day, 'YYYYMMDD');
      BEGIN
        IF to_regclass(partition) IS NOT NULL THEN
          RETURN;
        END IF;
        PERFORM pg_advisory_xact_lock(7204115007);
        -- By the table: to_regclass would still tell what it knew before the lock was waited for.
        IF EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'payloads'::regclass AND c.relname = partition) THEN
          RETURN;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE payloads INCLUDING ALL)', partition);
        EXECUTE format('ALTER TABLE payloads ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition, on_day, on_day + 1);
      END $$;

      CREATE TABLE retention_runs (
        id uuid PRIMARY KEY,
        started_at timestamptz NOT NULL,
        finished_at timestamptz NOT NULL,
        -- Whether nothing was left undone.
        complete boolean NOT NULL,
        summary jsonb NOT NULL
      );
      CREATE INDEX retention_runs_started_at ON retention_runs (started_at);
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
