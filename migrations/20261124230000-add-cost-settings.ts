import type { MigrationInterface, QueryRunner } from 'typeorm';

/** How a tenant's money is to be spent. */
export class AddCostSettings20261124230000 implements MigrationInterface {
  readonly name = 'AddCostSettings20261124230000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      ALTER TABLE tenants
        ADD COLUMN cost_mode text NOT NULL DEFAULT 'off' CHECK (cost_mode IN ('off', 'advise', 'optimize')),
        ADD COLUMN target_quality double precision NOT NULL DEFAULT 0.5 CHECK (target_quality BETWEEN 0 AND 1),
        ADD COLUMN request_ceiling_ticks bigint CHECK (request_ceiling_ticks > 0),
        ADD COLUMN holds text NOT NULL DEFAULT 'bounded' CHECK (holds IN ('bounded', 'strict'));
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
