import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { MIGRATIONS } from '../../migrations/index.ts';

/** Any number that only we use: processes that start at once queue for it, since TypeORM takes no lock of its own. */
const MIGRATION_LOCK = 7_204_115_001;
const LOCK_WAIT_MS = 120_000;

/** Brings the database up to date. Returns the names of the migrations that ran. */
export async function runMigrations(databaseUrl: string): Promise<string[]> {
  const lock = new Client({ connectionString: databaseUrl, application_name: 'novix-migrate' });
  await lock.connect();
  try {
    await lock.query(`SET lock_timeout = ${LOCK_WAIT_MS}`);
    await lock.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK]);
    const dataSource = await new DataSource({ type: 'postgres', url: databaseUrl, migrations: MIGRATIONS, migrationsTableName: 'schema_migrations' }).initialize();
    try {
      return (await dataSource.runMigrations({ transaction: 'each' })).map((migration) => migration.name);
    } finally {
      await dataSource.destroy();
    }
  } finally {
    await lock.end(); // releases the lock
  }
}
