import { Pool } from 'pg';
import type { Logger } from 'pino';
import { DataSource } from 'typeorm';
import { ApiKeyEntity } from '../auth/api-key-entity.ts';
import { PolicyEntity } from '../auth/policy-entity.ts';
import { RevocationEntity } from '../auth/revocation-entity.ts';
import { Budget } from '../cost/budget.ts';
import { StoredDeployment } from '../provider/stored-deployment.ts';
import { Tenant } from '../tenants/tenant.ts';

const CONNECT_TIMEOUT_MS = 2_000;
const STATEMENT_TIMEOUT_MS = 10_000;

/** A small pool for background work: heartbeats, the sweeper, keys. The request path has the journal's own connection. */
export function createPool(databaseUrl: string, logger: Logger): Pool {
  const pool = new Pool({
    connectionString: databaseUrl, max: 4, application_name: 'novix', connectionTimeoutMillis: CONNECT_TIMEOUT_MS, statement_timeout: STATEMENT_TIMEOUT_MS,
    query_timeout: STATEMENT_TIMEOUT_MS, idle_in_transaction_session_timeout: STATEMENT_TIMEOUT_MS,
  });
  pool.on('error', (error) => logger.warn({ err: error }, 'database: an idle connection broke'));
  return pool;
}

/** TypeORM's data source, for the admin API's entities. */
export function createDataSource(databaseUrl: string, logger: Logger): DataSource {
  return new DataSource({
    type: 'postgres', url: databaseUrl, entities: [Tenant, Budget, StoredDeployment, PolicyEntity, RevocationEntity, ApiKeyEntity], applicationName: 'novix-admin', connectTimeoutMS: CONNECT_TIMEOUT_MS,
    poolErrorHandler: (error: unknown) => logger.warn({ err: error }, 'database: an idle connection broke'),
    extra: { max: 4, statement_timeout: STATEMENT_TIMEOUT_MS, query_timeout: STATEMENT_TIMEOUT_MS, idle_in_transaction_session_timeout: STATEMENT_TIMEOUT_MS },
  });
}
