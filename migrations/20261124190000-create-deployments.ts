import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What the admin API says of deployments, over the reviewed file; and which breakers an admin has forced open, or closed since when. */
export class CreateDeployments20261124190000 implements MigrationInterface {
  readonly name = 'CreateDeployments20261124190000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE deployments (
        id text PRIMARY KEY,
        definition jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
      );

      CREATE TABLE breaker_orders (
        deployment text PRIMARY KEY,
        forced_open boolean NOT NULL,
        -- Grows with each order, so that replicas know which they have carried out.
        number bigint GENERATED ALWAYS AS IDENTITY,
        ordered_at timestamptz NOT NULL DEFAULT now()
      );
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
