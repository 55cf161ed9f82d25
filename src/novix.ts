#!/usr/bin/env node
import { Command, Option } from 'commander';
import { DataSource } from 'typeorm';
import { recordChange, type ChangeOrigin } from './audit/record-change.ts';
import { loadCatalogue } from './catalogue/catalogue.ts';
import { loadTiers, TIER_NAMES, type TierName } from './catalogue/tiers.ts';
import { PoliciesFile } from './auth/policy.ts';
import { DecisionPoint } from './auth/decision-point.ts';
import { BUDGET_SCOPES, BUDGET_WINDOWS, budgetView, type BudgetWindow } from './cost/budget.ts';
import { scopeKey } from './cost/budgets.controller.ts';
import { Budgets } from './cost/budgets.ts';
import { anySandbox, loadEnv, type Env } from './env.ts';
import { assertNode, main, reportFailure } from './start.ts';
import { readConfigFile } from './shared/config-files.ts';
import { createDataSource } from './shared/database.ts';
import { createLogger } from './shared/logger.ts';
import { runMigrations } from './shared/migrations.ts';
import { parseUsd } from './shared/usd-ticks.ts';
import { TENANT_ID_PATTERN } from './tenants/tenant.ts';
import { Tenants, tenantView } from './tenants/tenants.ts';

const ORIGIN: ChangeOrigin = {
  requestId: '00000000-0000-0000-0000-000000000000', operation: 'novix command line', ip: '127.0.0.1',
  actor: { tenant: 'platform', subject: 'command-line', tokenId: undefined, issuer: undefined, clientId: undefined },
};

const program = new Command('novix').description('Novix Gateway for xAI Grok').configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'novix: ')) });
const json = (): Option => new Option('--json', 'print JSON');

program.hook('preAction', assertNode);

program.command('start').description('start the gateway').action(main);

program.command('migrate').description('bring the database up to date').addOption(json()).action(async (options: { json?: true }) => {
  await withDatabase(async (url) => {
    const ran = await runMigrations(url);
    print(options, { migrations: ran }, ran.length === 0 ? 'The database is up to date.' : `Ran ${ran.join(', ')}.`);
  });
});

program.command('config').description('settings').command('check').description('check settings and config files without starting').addOption(json()).action(async (options: { json?: true }) => {
  const { env, sandbox } = await loadEnv();
  const catalogue = loadCatalogue();
  loadTiers();
  const policies = readConfigFile('policies.yaml', PoliciesFile);
  const decisions = new DecisionPoint('check', policies.policies); // compiles every rule
  if (!catalogue.resolve(env.defaults.model)) throw new Error(`XAI_MODEL: config/models.yaml has no model ${env.defaults.model}`);
  const imitated = Object.entries(sandbox).filter(([, on]) => on).map(([part]) => part);
  print(options, { ok: decisions.revision === 'check', sandbox: imitated }, `Settings are good. ${anySandbox(sandbox) ? `Sandbox: ${imitated.join(', ')}.` : 'No sandbox part.'}`);
});

program.command('token').description('sandbox tokens').command('mint').description('make a token of the sandbox issuer')
  .requiredOption('--tenant <id>').requiredOption('--sub <subject>').option('--role <role...>', 'one or more roles', ['developer']).option('--attr <key=value...>', 'attributes')
  .option('--ttl <seconds>', 'lifetime', '3600').addOption(json())
  .action(async (options: { tenant: string; sub: string; role: string[]; attr?: string[]; ttl: string; json?: true }) => {
    const { env, sandbox } = await loadEnv();
    if (!sandbox.identity) throw new Error('AUTH_ISSUER is set: get tokens from that identity provider, not from here');
    const { LocalIssuer } = await import('./sandbox/local-issuer.ts');
    const { issuerKeyFile } = await import('./sandbox/sandbox.ts');
    const issuer = await LocalIssuer.open(issuerKeyFile(env));
    if (!/^\d{1,8}$/.test(options.ttl) || Number(options.ttl) < 1) throw new Error('--ttl takes whole seconds, one or more');
    const token = await issuer.mint({ tenant: options.tenant, subject: options.sub, roles: options.role, attributes: readAttributes(options.attr ?? []), ttlSeconds: Number(options.ttl) });
    print(options, { token }, token);
  });

program.command('tenant').description('tenants').command('create').description('make a tenant in the database itself')
  .requiredOption('--id <id>').requiredOption('--name <name>').addOption(new Option('--tier <tier>').choices([...TIER_NAMES]).makeOptionMandatory()).addOption(json())
  .action(async (options: { id: string; name: string; tier: TierName; json?: true }) => {
    if (!new RegExp(TENANT_ID_PATTERN).test(options.id)) throw new Error('--id takes lower-case letters, digits, - and _, at most 63');
    await withEntities(async (dataSource) => {
      const { id, name, tier } = options;
      const tenant = await new Tenants(dataSource).create({ id, name, tier }, (manager, created) =>
        recordChange(manager, { origin: ORIGIN, timeMs: Date.now(), activity: 'create', object: { type: 'tenant', id }, before: null, after: tenantView(created) }));
      print(options, tenantView(tenant), `Tenant ${id} is made. It has no budget yet: npx novix budget create --tenant ${id} --limit-usd 100 --window month`);
    });
  });

program.command('budget').description('budgets').command('create').description('make a budget in the database itself')
  .requiredOption('--tenant <id>').requiredOption('--limit-usd <usd>').addOption(new Option('--window <window>').choices([...BUDGET_WINDOWS]).makeOptionMandatory())
  .option('--scope <type:id>', 'team:…, user:…, key:… or model:…; the whole tenant otherwise', 'tenant').addOption(json())
  .action(async (options: { tenant: string; limitUsd: string; window: BudgetWindow; scope: string; json?: true }) => {
    const limitTicks = parseUsd(options.limitUsd);
    if (limitTicks === undefined) throw new Error('--limit-usd takes a decimal number of USD such as 12.50');
    const scope = readScope(options.scope);
    await withEntities(async (dataSource) => {
      const nowMs = Date.now();
      const budget = await new Budgets(dataSource).create({ tenantId: options.tenant, scope, window: options.window, limitTicks, warnAt: [] }, nowMs, (manager, created) =>
        recordChange(manager, { origin: ORIGIN, timeMs: nowMs, activity: 'create', object: { type: 'budget', id: created.id }, before: null, after: budgetView(created, nowMs) }));
      print(options, budgetView(budget, nowMs), `Budget ${budget.id}: ${options.limitUsd} USD a ${options.window} for ${options.tenant}, ${scope}.`);
    });
  });

/** Runs with the configured database, or the sandbox's own, started where it is not running. */
async function withDatabase(use: (url: string, env: Env) => Promise<void>): Promise<void> {
  const { env } = await loadEnv();
  if (env.databaseUrl !== undefined) {
    await use(env.databaseUrl, env);
    return;
  }
  const { startEmbeddedPostgres } = await import('./sandbox/embedded-postgres.ts');
  const { postgresDir } = await import('./sandbox/sandbox.ts');
  const postgres = await startEmbeddedPostgres({ dataDir: postgresDir(env), durable: true });
  try {
    await use(postgres.url, env);
  } finally {
    await postgres.stop();
  }
}

async function withEntities(use: (dataSource: DataSource) => Promise<void>): Promise<void> {
  await withDatabase(async (url, env) => {
    await runMigrations(url);
    const dataSource = await createDataSource(url, createLogger(env.logLevel)).initialize();
    try {
      await use(dataSource);
    } finally {
      await dataSource.destroy();
    }
  });
}

function readScope(text: string): string {
  const [type, ...rest] = text.split(':');
  const known = BUDGET_SCOPES.find((scope) => scope === type);
  if (known === undefined) throw new Error(`--scope takes tenant, or one of team:, user:, key:, model: with a name`);
  return scopeKey(rest.length === 0 ? { type: known } : { type: known, id: rest.join(':') });
}

/** `clearance=3` is a number, `team=bi` a text, `region=eu,us` a list. */
function readAttributes(pairs: readonly string[]): Record<string, string | number | string[]> {
  return Object.fromEntries(pairs.map((pair) => {
    const [key, ...rest] = pair.split('=');
    if (!key || rest.length === 0) throw new Error(`--attr takes key=value, not ${pair}`);
    const value = rest.join('=');
    return [key, /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : value.includes(',') ? value.split(',') : value];
  }));
}

function print(options: { json?: true }, value: unknown, text: string): void {
  process.stdout.write(options.json ? `${JSON.stringify(value)}\n` : `${text}\n`);
}

program.parseAsync().catch((error: unknown) => {
  reportFailure(error);
  process.exitCode = 1;
});
