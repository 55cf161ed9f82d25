import { rmSync } from 'node:fs';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { killEmbeddedPostgres, startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/sandbox/embedded-postgres.ts';
import { processIdentity } from '../../src/sandbox/live-process.ts';
import { runMigrations } from '../../src/shared/migrations.ts';
import { TEMPLATE } from './test-database.ts';

const PREFIX = 'novix-test-postgres-';

declare global {
  /** How global-teardown.ts learns what global-setup.ts has started. */
  var testPostgres: { postgres: EmbeddedPostgres; folder: string } | undefined;
}

/** One PostgreSQL for the whole run, with a template database that the product's own migrations have made. */
export default async function globalSetup(): Promise<void> {
  await removeLeftovers();
  const folder = await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
  if (process.getuid?.() === 0) await chmod(folder, 0o755);
  const postgres = await startEmbeddedPostgres({ dataDir: join(folder, 'postgres'), durable: false, maxConnections: 200 });
  globalThis.testPostgres = { postgres, folder };
  stopOnExit();
  await makeTemplate(postgres.url);
  process.env['TEST_POSTGRES_URL'] = postgres.url;
}

/** A run that was killed leaves its server behind, since that survives its starter on purpose. */
async function removeLeftovers(): Promise<void> {
  const folders = (await readdir(tmpdir())).filter((name) => name.startsWith(PREFIX));
  for (const name of folders) {
    const starter = Number.parseInt(name.slice(PREFIX.length), 10);
    if (processIdentity(starter) !== undefined) continue;
    const folder = join(tmpdir(), name);
    killEmbeddedPostgres(join(folder, 'postgres'));
    await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }
}

/** Teardown is skipped when something calls `process.exit`, and at a signal. */
function stopOnExit(): void {
  process.once('exit', () => {
    const running = globalThis.testPostgres;
    if (running === undefined) return; // global-teardown.ts has been here
    killEmbeddedPostgres(running.postgres.dataDir);
    for (const folder of [running.postgres.dataDir, running.folder]) rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => process.exit(128 + constants.signals[signal]));
  }
}

async function makeTemplate(adminUrl: string): Promise<void> {
  const admin = new Client({ connectionString: adminUrl });
  await admin.connect();
  try {
    await admin.query(`CREATE DATABASE ${TEMPLATE}`);
    const url = new URL(adminUrl);
    url.pathname = `/${TEMPLATE}`;
    await runMigrations(url.href);
    await admin.query(`ALTER DATABASE ${TEMPLATE} WITH ALLOW_CONNECTIONS false`); // a session in it would hinder copying
  } finally {
    await admin.end();
  }
}
