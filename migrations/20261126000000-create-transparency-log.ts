import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * The transparency log over the audit leaves: tiles of the Merkle tree, signed checkpoints, and whom and what each leaf is about, so that it is found
 * without reading it. These columns are for finding alone: `novix audit verify` compares them with the leaves.
 */
export class CreateTransparencyLog20261126000000 implements MigrationInterface {
  readonly name = 'CreateTransparencyLog20261126000000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE FUNCTION audit_found_by(body bytea, name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT convert_from(body, 'UTF8')::json -> 'metadata' ->> name $$;
      CREATE FUNCTION audit_uuid(value text) RETURNS uuid LANGUAGE sql IMMUTABLE AS
        $$ SELECT CASE WHEN value ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN value::uuid END $$;
      ALTER TABLE audit_pending ADD COLUMN tenant_id text, ADD COLUMN request_id uuid;
      ALTER TABLE audit_leaves ADD COLUMN tenant_id text, ADD COLUMN request_id uuid;
      -- Of leaves that there are already: the one time that they change, in what is no part of the leaf.
      ALTER TABLE audit_leaves DISABLE TRIGGER audit_leaves_append_only;
      UPDATE audit_leaves SET tenant_id = audit_found_by(body, 'tenant_uid'), request_id = audit_uuid(audit_found_by(body, 'correlation_uid'));
      ALTER TABLE audit_leaves ENABLE TRIGGER audit_leaves_append_only;
      UPDATE audit_pending SET tenant_id = audit_found_by(body, 'tenant_uid'), request_id = audit_uuid(audit_found_by(body, 'correlation_uid'));
      DROP FUNCTION audit_found_by(bytea, text);
      DROP FUNCTION audit_uuid(text);
      CREATE INDEX audit_leaves_tenant ON audit_leaves (tenant_id, index);
      CREATE INDEX audit_leaves_request ON audit_leaves (request_id);

      -- tree_size: leaves that the tiles have. pruned_below: leaves below are gone by policy. origin: the log's own name.
      ALTER TABLE audit_head ADD COLUMN tree_size bigint NOT NULL DEFAULT 0, ADD COLUMN pruned_below bigint NOT NULL DEFAULT 0,
        ADD COLUMN origin text NOT NULL DEFAULT 'novix-gateway/' || gen_random_uuid();

      -- Tiles grow up to 256 hashes, and never change otherwise.
      CREATE TABLE audit_tiles (
        level smallint NOT NULL,
        index bigint NOT NULL,
        hashes bytea NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
        PRIMARY KEY (level, index)
      );
      CREATE FUNCTION audit_tile_grows() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF substring(NEW.hashes FOR octet_length(OLD.hashes)) IS DISTINCT FROM OLD.hashes THEN RAISE EXCEPTION 'audit tiles only grow'; END IF;
        RETURN NEW;
      END $$;
      CREATE TRIGGER audit_tiles_grow BEFORE UPDATE ON audit_tiles FOR EACH ROW EXECUTE FUNCTION audit_tile_grows();

      CREATE TABLE audit_checkpoints (
        size bigint PRIMARY KEY,
        note text NOT NULL,
        signed_at timestamptz NOT NULL
      );
      CREATE INDEX audit_checkpoints_signed_at ON audit_checkpoints (signed_at);

      -- Which leaves are where, and how long it took to fill: what was filled quickly is followed by a wider partition.
      CREATE TABLE audit_partitions (
        low bigint PRIMARY KEY,
        high bigint NOT NULL UNIQUE,
        name text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        filled_at timestamptz,
        dropped_at timestamptz
      );

      -- Partitions begin and end at multiples of 256, so that dropping one never cuts a tile.
      CREATE OR REPLACE FUNCTION audit_ensure_partition(at_index bigint) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        last audit_partitions;
        width bigint;
        partition text;
      BEGIN
        LOOP
          SELECT * INTO last FROM audit_partitions ORDER BY low DESC LIMIT 1;
          EXIT WHEN last.high > at_index;
          width := CASE WHEN last IS NULL THEN 65536
            WHEN clock_timestamp() - last.created_at < interval '1 hour' THEN least((last.high - last.low) * 2, 16777216)
            WHEN clock_timestamp() - last.created_at > interval '1 day' THEN greatest((last.high - last.low) / 2, 4096)
            ELSE last.high - last.low END;
          partition := 'audit_leaves_' || lpad(coalesce(last.high, 0)::text, 14, '0');
          EXECUTE format('CREATE TABLE %I PARTITION OF audit_leaves FOR VALUES FROM (%s) TO (%s)', partition, coalesce(last.high, 0), coalesce(last.high, 0) + width);
          -- Row triggers are inherited by partitions, statement triggers are not.
          EXECUTE format('CREATE TRIGGER no_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()', partition);
          INSERT INTO audit_partitions (low, high, name) VALUES (coalesce(last.high, 0), coalesce(last.high, 0) + width, partition);
        END LOOP;
        UPDATE audit_partitions SET filled_at = clock_timestamp() WHERE filled_at IS NULL AND high <= (SELECT size FROM audit_head);
      END $$;

      -- A log that has leaves already keeps the partitions that it has.
      DO $$
      DECLARE
        width CONSTANT bigint := 1048576;
        partition text;
      BEGIN
        IF (SELECT size FROM audit_head) = 0 AND NOT EXISTS (SELECT FROM audit_leaves) THEN
          FOR partition IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_leaves'::regclass LOOP
            EXECUTE format('DROP TABLE %I', partition);
          END LOOP;
          PERFORM audit_ensure_partition(0);
        ELSE
          INSERT INTO audit_partitions (low, high, name)
            SELECT right(c.relname, 8)::bigint * width, (right(c.relname, 8)::bigint + 1) * width, c.relname
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_leaves'::regclass;
        END IF;
      END $$;

      -- Heads: {"i": operation, "id": uuid, "t": tenant, "r": request}, each with its body: the event as bytes, which nothing has to parse on their way in.
      -- An operation that an earlier participant refused leaves no record here.
      DROP FUNCTION audit_append(smallint[], json);
      CREATE FUNCTION audit_append(verdicts smallint[], heads json, bodies bytea[]) RETURNS smallint[] LANGUAGE plpgsql VOLATILE AS $$
      BEGIN
        INSERT INTO audit_pending (id, tenant_id, request_id, body)
          SELECT e.id, e.t, e.r, e.body FROM ROWS FROM (json_to_recordset(heads) AS (i int, id uuid, t text, r uuid), unnest(bodies)) AS e(i, id, t, r, body)
          WHERE verdicts[e.i + 1] = 0 ORDER BY e.i;
        RETURN verdicts;
      END $$;

      -- Leaves are read where they lie, in their order: through a sort, or a list of what was deleted, their bytes would be copied once more.
      -- Nobody else deletes from audit_pending, and whoever sequences has the lock on the head.
      CREATE OR REPLACE FUNCTION audit_sequence(leaves_max int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
      DECLARE
        first_index bigint;
        taken tid[];
        moved int;
      BEGIN
        SELECT size INTO first_index FROM audit_head FOR UPDATE;
        PERFORM audit_ensure_partition(first_index + leaves_max);
        taken := ARRAY(SELECT ctid FROM audit_pending ORDER BY arrival LIMIT leaves_max);
        INSERT INTO audit_leaves (index, id, tenant_id, request_id, leaf_hash, body)
          SELECT first_index + t.place - 1, p.id, p.tenant_id, p.request_id, sha256('\\x00'::bytea || p.body), p.body
          FROM unnest(taken) WITH ORDINALITY AS t (row, place) JOIN audit_pending p ON p.ctid = t.row;
        GET DIAGNOSTICS moved = ROW_COUNT;
        IF moved <> cardinality(taken) THEN RAISE EXCEPTION 'pending leaves changed while they were sequenced'; END IF;
        DELETE FROM audit_pending WHERE ctid = ANY (taken);
        IF moved > 0 THEN
          UPDATE audit_head SET size = first_index + moved, sequenced_at = now();
        END IF;
        RETURN moved;
      END $$;
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
