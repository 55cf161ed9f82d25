import { Client } from 'pg';
import type { DataSource } from 'typeorm';
import { recordChange, type ChangeOrigin } from './audit/record-change.ts';
import { budgetView } from './cost/budget.ts';
import { Budgets, type NewBudget } from './cost/budgets.ts';
import { checkLedger } from './cost/ledger-check.ts';
import { loadEnv, type Env } from './env.ts';
import { createDataSource } from './shared/database.ts';
import { createLogger } from './shared/logger.ts';
import { runMigrations } from './shared/migrations.ts';
import { TENANT_ID_PATTERN } from './tenants/tenant.ts';
import { Tenants, tenantView, type TenantFields } from './tenants/tenants.ts';

const ORIGIN: ChangeOrigin = {
  requestId: '00000000-0000-0000-0000-000000000000', operation: 'novix command line', ip: '127.0.0.1',
  actor: { tenant: 'platform', subject: 'command-line', tokenId: undefined, issuer: undefined, clientId: undefined },
};

/** Brings the database up to date. Returns the names of the migrations that ran. */
export function migrate(): Promise<string[]> {
  return withDatabase((url) => runMigrations(url));
}

/** Checks the whole ledger. Returns what was checked, and what does not add up. */
export function checkLedgerOf(): Promise<Awaited<ReturnType<typeof checkLedger>>> {
  return withDatabase(async (url) => {
    const client = new Client({ connectionString: url, application_name: 'novix-ledger-check' });
    await client.connect();
    try {
      return await checkLedger(async (sql) => (await client.query(sql)).rows as unknown[]);
    } finally {
      await client.end();
    }
  });
}

export function createTenant(fields: TenantFields): Promise<Record<string, unknown>> {
  if (!new RegExp(TENANT_ID_PATTERN).test(fields.id)) throw new Error('--id takes lower-case letters, digits, - and _, at most 63');
  return withEntities(async (dataSource) => tenantView(await new Tenants(dataSource).create(fields, (manager, created) =>
    recordChange(manager, { origin: ORIGIN, timeMs: Date.now(), activity: 'create', object: { type: 'tenant', id: created.id }, before: null, after: tenantView(created) }))));
}

export function createBudget(budget: NewBudget): Promise<Record<string, unknown>> {
  return withEntities(async (dataSource) => {
    const nowMs = Date.now();
    return budgetView(await new Budgets(dataSource).create(budget, nowMs, (manager, created) =>
      recordChange(manager, { origin: ORIGIN, timeMs: nowMs, activity: 'create', object: { type: 'budget', id: created.id }, before: null, after: budgetView(created, nowMs) })), nowMs);
  });
}

/** Runs with the configured database, or the sandbox's own, started where it is not running. */
export async function withDatabase<T>(use: (url: string, env: Env) => Promise<T>): Promise<T> {
  const { env } = await loadEnv();
  if (env.databaseUrl !== undefined) return use(env.databaseUrl, env);
  const { startEmbeddedPostgres } = await import('./sandbox/embedded-postgres.ts');
  const { postgresDir } = await import('./sandbox/sandbox.ts');
  const postgres = await startEmbeddedPostgres({ dataDir: postgresDir(env), durable: true });
  try {
    return await use(postgres.url, env);
  } finally {
    await postgres.stop();
  }
}

function withEntities<T>(use: (dataSource: DataSource) => Promise<T>): Promise<T> {
  return withDatabase(async (url, env) => {
    await runMigrations(url);
    const dataSource = await createDataSource(url, createLogger(env.logLevel)).initialize();
    try {
      return await use(dataSource);
    } finally {
      await dataSource.destroy();
    }
  });
}
