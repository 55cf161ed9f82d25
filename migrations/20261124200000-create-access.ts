import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Who may do what, beyond the reviewed files: policies, revocations and API keys; and one number that every change of them moves on. */
export class CreateAccess20261124200000 implements MigrationInterface {
  readonly name = 'CreateAccess20261124200000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE access_revision (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        number bigint NOT NULL
      );
      INSERT INTO access_revision (number) VALUES (0);

      -- Without a tenant a policy holds for all of them.
      CREATE TABLE policies (
        id uuid PRIMARY KEY,
        tenant_id text REFERENCES tenants (id),
        name text NOT NULL,
        status text NOT NULL CHECK (status IN ('enforced', 'shadow')),
        rules json NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
      );

      CREATE TABLE revocations (
        id uuid PRIMARY KEY,
        type text NOT NULL CHECK (type IN ('jti', 'sub', 'key', 'certificate')),
        value text NOT NULL,
        tenant_id text REFERENCES tenants (id),
        created_at timestamptz NOT NULL DEFAULT now(),
        -- Null: until it is removed.
        expires_at timestamptz
      );
      CREATE UNIQUE INDEX revocations_once ON revocations (type, value, coalesce(tenant_id, ''));

      CREATE TABLE api_keys (
        id uuid PRIMARY KEY,
        tenant_id text NOT NULL REFERENCES tenants (id),
        subject text NOT NULL,
        roles text[] NOT NULL,
        attributes jsonb NOT NULL,
        -- Null: all that the rules allow.
        models text[],
        -- HMAC-SHA-256 of the key, and which pepper it was made with.
        hash bytea NOT NULL UNIQUE,
        pepper text NOT NULL,
        created_by text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz,
        revoked_at timestamptz,
        last_used_on date
      );
      CREATE INDEX api_keys_tenant ON api_keys (tenant_id, id);

      -- Secrets of the installation that no file gives; see docs/known-limits.md.
      CREATE TABLE gateway_secrets (
        name text PRIMARY KEY,
        value bytea NOT NULL
      );

      ALTER TABLE tenants ADD COLUMN data_class text NOT NULL DEFAULT 'internal' CHECK (data_class IN ('public', 'internal', 'confidential', 'restricted'));
      ALTER TABLE tenants ADD COLUMN bound_tokens boolean NOT NULL DEFAULT false;
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
