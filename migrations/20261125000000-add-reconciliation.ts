import type { MigrationInterface, QueryRunner } from 'typeorm';

/** The charges that finance may have to correct, found without a scan of all; and how far an alert has been told to the webhook. */
export class AddReconciliation20261125000000 implements MigrationInterface {
  readonly name = 'AddReconciliation20261125000000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE INDEX settlements_uncertain ON settlements (hold_id) WHERE state = 'expired_charged' OR (state = 'settled' AND basis IN ('observed', 'hold'));

      -- Null: nothing; then the state that was told last.
      ALTER TABLE alerts ADD COLUMN told_state text CHECK (told_state IN ('firing', 'resolved'));
      CREATE INDEX alerts_untold ON alerts (id) WHERE told_state IS DISTINCT FROM state;
    `);
  }

  async down(): Promise<void> {
    throw new Error('migrations go forward only');
  }
}
