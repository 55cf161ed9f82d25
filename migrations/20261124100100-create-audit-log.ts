import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * The audit log. Leaves are durable in `audit_pending` when their batch commits; one leader moves them into `audit_leaves` with contiguous
 * indexes. A leaf's body is the exact bytes of the event, `bytea` and never `jsonb`, because the Merkle tree hashes these bytes.
 */
export class CreateAuditLog20261124100100 implements MigrationInterface {
  readonly name = 'CreateAuditLog20261124100100';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE audit_pending (
        arrival bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id uuid NOT NULL,
        body bytea NOT NULL CHECK (octet_length(body) BETWEEN 2 AND 65535)
      );

      -- leaf_hash is that of RFC 6962: SHA-256 over a zero byte and the body.
      CREATE TABLE audit_leaves (
        index bigint NOT NULL,
        id uuid NOT NULL,
        leaf_hash bytea NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (index)
      ) PARTITION BY RANGE (index);

      CREATE TABLE audit_head (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        size bigint NOT NULL,
        sequenced_at timestamptz NOT NULL DEFAULT now()
      );
      INSERT INTO audit_head (size) VALUES (0);

      CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'audit leaves are append-only'; END $$;
      CREATE TRIGGER audit_leaves_append_only BEFORE UPDATE OR DELETE ON audit_leaves FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
      CREATE TRIGGER audit_leaves_no_truncate BEFORE TRUNCATE ON audit_leaves FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();

      -- Entries: {"i": operation, "id": uuid, "b": event}. The type json keeps an event's text to the byte; jsonb would not.
      -- An operation that an earlier participant refused leaves no record here.
      CREATE FUNCTION audit_append(verdicts smallint[], entries json) RETURNS smallint[] LANGUAGE plpgsql VOLATILE AS $$
      BEGIN
        INSERT INTO audit_pending (id, body)
          SELECT e.id, convert_to(e.b::text, 'UTF8') FROM json_to_recordset(entries) AS e(i int, id uuid, b json)
          WHERE verdicts[e.i + 1] = 0 ORDER BY e.i;
        RETURN verdicts;
      END $$;

      -- Partitions hold 2^20 leaves: a multiple of 256, so that dropping one never cuts a tile.
      CREATE FUNCTION audit_ensure_partition(at_index bigint) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        width CONSTANT bigint := 1048576;
        low bigint := at_index / width * width;
        partition text := 'audit_leaves_' || lpad((at_index / width)::text, 8, '0');
      BEGIN
        IF to_regclass(partition) IS NULL THEN
          EXECUTE format('CREATE TABLE %I PARTITION OF audit_leaves FOR VALUES FROM (%s) TO (%s)', partition, low, low + width);
          -- Row triggers are inherited by partitions, statement triggers are not.
          EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()', partition);
        END IF;
      END $$;
      SELECT audit_ensure_partition(0);

      -- Gives pending leaves their indexes, in order of arrival. The lock on the head makes two leaders harmless. Returns how many it moved.
      CREATE FUNCTION audit_sequence(leaves_max int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
      DECLARE
        first_index bigint;
        moved int;
      BEGIN
        SELECT size INTO first_index FROM audit_head FOR UPDATE;
        PERFORM audit_ensure_partition(first_index), audit_ensure_partition(first_index + leaves_max);
        WITH taken AS (
          DELETE FROM audit_pending WHERE arrival IN (SELECT arrival FROM audit_pending ORDER BY arrival LIMIT leaves_max)
          RETURNING arrival, id, body
        )
        INSERT INTO audit_leaves (index, id, leaf_hash, body)
          SELECT first_index + row_number() OVER (ORDER BY arrival) - 1, id, sha256('\\x00'::bytea || body), body FROM taken;
        GET DIAGNOSTICS moved = ROW_COUNT;
        IF moved > 0 THEN
          UPDATE audit_head SET size = first_index + moved, sequenced_at = now();
        END IF;
        RETURN moved;
      END $$;

      -- For reading with psql. Proofs are made from the bytes, not from this view.
      CREATE VIEW audit_events AS
        SELECT index, id, convert_from(body, 'UTF8')::json AS event FROM audit_leaves
        UNION ALL
        SELECT NULL, id, convert_from(body, 'UTF8')::json FROM audit_pending;

      -- One key a tenant and day, for commitments to prompts and answers: to destroy it closes all of that day's for good.
      CREATE TABLE commitment_keys (
        id uuid PRIMARY KEY,
        tenant_id text NOT NULL,
        day date NOT NULL,
        key bytea NOT NULL CHECK (octet_length(key) = 32),
        created_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (tenant_id, day)
      );
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
