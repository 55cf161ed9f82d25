import type { BlockList } from 'node:net';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { collectDefaultMetrics, Registry } from 'prom-client';
import type { DataSource } from 'typeorm';
import { AlertWebhook } from './alerts/alert-webhook.ts';
import { Alerts } from './alerts/alerts.ts';
import { Commitments } from './audit/commitments.ts';
import { Refusals } from './audit/refusals.ts';
import { CheckpointFile } from './audit/checkpoint-file.ts';
import { LeafRetention } from './audit/leaf-retention.ts';
import { LogBook } from './audit/log-book.ts';
import { Sequencer } from './audit/sequencer.ts';
import { openSigningKeys, type SigningKeys } from './audit/signing-keys.ts';
import { AccessRules } from './auth/access-rules.ts';
import { ApiKeys } from './auth/api-keys.ts';
import { ClientCertificates, trustedProxyList } from './auth/client-certificates.ts';
import { RevokedCertificates } from './auth/revoked-certificates.ts';
import { InboundTls } from './inbound-tls.ts';
import { KeyPepper } from './auth/key-pepper.ts';
import { jwksFetch } from './auth/jwks-fetch.ts';
import { TokenVerifier } from './auth/token-verifier.ts';
import { VerifiedTokens } from './auth/verified-tokens.ts';
import type { Catalogue } from './catalogue/catalogue.ts';
import type { Tiers } from './catalogue/tiers.ts';
import { Admission } from './completions/admission.ts';
import { CallMetrics } from './completions/call-metrics.ts';
import { conversationSecret } from './completions/conversation.ts';
import { Dispatcher } from './completions/dispatch.ts';
import { CompletionPipeline } from './completions/completion-pipeline.ts';
import { RunningCalls } from './completions/running-calls.ts';
import { CostEngine } from './completions/cost-engine.ts';
import { Predictor } from './cost/predictor.ts';
import { Prices } from './cost/prices.ts';
import { UsageCompaction } from './cost/usage-compaction.ts';
import { Idempotency } from './completions/idempotency.ts';
import { OrphanSweeper } from './completions/orphan-sweeper.ts';
import { checkConfigFiles } from './config-check.ts';
import { sandboxParts, type Env } from './env.ts';
import { Health } from './health/health.ts';
import { JournalMetrics } from './journal/journal-metrics.ts';
import { Journal } from './journal/journal.ts';
import { Spool } from './journal/spool.ts';
import { Breakers } from './provider/breakers.ts';
import { Deployments } from './provider/deployments.ts';
import { listModels } from './provider/model-list.ts';
import { ProviderMetrics } from './provider/provider-metrics.ts';
import { Shards } from './provider/shards.ts';
import { ENVIRONMENT_KEY, secretsOf } from './provider/deployment-secrets.ts';
import { OpenedSecrets } from './secrets/opened-secrets.ts';
import { Secrets } from './secrets/secrets.ts';
import { secretsOfSettings } from './secrets/settings-secrets.ts';
import { SiemExporter } from './siem/exporter.ts';
import { SiemSinks } from './siem/siem-sinks.ts';
import type { Clock } from './shared/clock.ts';
import { createDataSource, createPool } from './shared/database.ts';
import { hideFromLog } from './shared/logger.ts';
import { Notifications } from './shared/notifications.ts';
import { runMigrations } from './shared/migrations.ts';
import { Replica } from './shared/replica.ts';
import { CallLimits } from './throttle/call-limits.ts';
import { TenantDirectory } from './tenants/tenant-directory.ts';
import { openVault, type VaultParts } from './vault/open-vault.ts';

const VERIFIED_TOKENS_MAX = 50_000;
/** How long calls that were cut at the end of the grace period may take to be recorded. */
const LAST_OUTCOMES_MS = 6_000;

/** Settings with nothing left open: what the environment says, or the sandbox supplies. */
export type GatewaySettings = Env & { databaseUrl: string; provider: Env['provider'] & { apiKey: string } };

/** Settings that need nothing of the sandbox. */
export function completeSettings(env: Env): GatewaySettings {
  const { databaseUrl, provider } = env;
  if (databaseUrl === undefined || provider.apiKey === undefined || sandboxParts(env).identity) throw new Error('settings are incomplete'); // env.ts has refused this already
  return { ...env, databaseUrl, provider: { ...provider, apiKey: provider.apiKey } };
}

/** Everything the gateway is made of, beside HTTP. */
export interface GatewayParts {
  settings: GatewaySettings;
  logger: Logger;
  clock: Clock;
  registry: Registry;
  pool: Pool;
  dataSource: DataSource;
  catalogue: Catalogue;
  tiers: Tiers;
  rules: AccessRules;
  tenants: TenantDirectory;
  verifier: TokenVerifier;
  verifiedTokens: VerifiedTokens;
  refusals: Refusals;
  admission: Admission;
  pipeline: CompletionPipeline;
  /** Undefined where checkpoints are not signed. */
  signingKeys: SigningKeys | undefined;
  health: Health;
  /** Seals and opens, whoever the provider is. */
  secrets: Secrets;
  deployments: Deployments;
  breakers: Breakers;
  apiKeys: ApiKeys;
  prices: Prices;
  siemSinks: SiemSinks;
  vault: VaultParts;
  /** Undefined where callers come by plain HTTP. */
  tls: InboundTls | undefined;
  trustedProxies: BlockList;
  clientCertificates: ClientCertificates;
  /** Stops all of it in order: outcomes still under way are recorded first. */
  close(): Promise<void>;
}

/**
 * Brings the parts up in order: configuration is checked before anything is touched, then the database, then what needs it.
 *
 * @throws {Error} with one clear line when something is not as it must be
 */
export async function openGatewayParts(settings: GatewaySettings, logger: Logger, clock: Clock): Promise<GatewayParts> {
  const { catalogue, tiers, policies, policyRevision, complexity } = checkConfigFiles(settings);
  const { secrets, opened } = await openSecrets(settings, catalogue, clock, logger);
  const trustedProxies = trustedProxyList(settings.trustedProxies);
  const revokedCertificates = new RevokedCertificates();
  const tls = settings.tls === undefined ? undefined : new InboundTls(settings.tls, revokedCertificates, logger);
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });

  await runMigrations(settings.databaseUrl);
  const pool = createPool(settings.databaseUrl, logger);
  const dataSource = await createDataSource(settings.databaseUrl, logger).initialize();
  const clientCertificates = new ClientCertificates(trustedProxies, revokedCertificates, clock);
  const replica = new Replica(pool, logger);
  await replica.open();
  const spool = new Spool(settings.spoolDir, replica.id, (id) => replica.isDead(id), logger);
  await spool.open();
  const journal = new Journal(settings.databaseUrl, spool, new JournalMetrics(registry), logger);
  await journal.open();
  const tenants = new TenantDirectory(dataSource, logger);
  await tenants.open();
  const { identity, issuers } = settings;
  const verifier = new TokenVerifier(identity === undefined ? issuers : [identity, ...issuers], jwksFetch(settings.egress), clock, logger);
  await verifier.open();
  const verifiedTokens = new VerifiedTokens(VERIFIED_TOKENS_MAX);
  tenants.onChange(() => verifiedTokens.clear());
  const refusals = new Refusals(journal, clock, logger, registry);
  refusals.open();
  const alerts = new Alerts(pool, logger, registry);
  alerts.start();
  const signingKeys = settings.audit.signingKeyFile === undefined ? undefined : openSigningKeys(settings.audit.signingKeyFile, !settings.production);
  if (signingKeys === undefined) logger.error('audit: AUDIT_SIGNING_KEY_FILE is not set: the log is kept, but no checkpoint of it is signed');
  const sequencer = new Sequencer(settings.databaseUrl, new LogBook(signingKeys, new CheckpointFile(settings.audit.checkpointFile), alerts, clock, logger, registry), logger, registry);
  sequencer.start();
  const predictor = new Predictor();
  const costEngine = new CostEngine(catalogue, predictor, complexity);
  const idempotency = new Idempotency(pool, clock);
  const admission = new Admission(journal, new Commitments(pool), idempotency, replica, clock, logger);
  const sweeper = new OrphanSweeper(pool, journal, idempotency, replica, clock, logger, registry);
  sweeper.start();
  const metrics = new CallMetrics(registry, () => admission.open);
  const { provider } = settings;
  const providerMetrics = new ProviderMetrics(registry);
  const shards = new Shards(settings, opened, providerMetrics, clock, Math.random, logger, catalogue.deployments, (id, openMs) => {
    breakers.announce(id, openMs);
    alerts.fire({ type: 'breaker_open', tenantId: undefined, subject: id, occasion: `breaker ${id} ${new Date(clock.nowMs()).toISOString().slice(0, 16)}`, value: `open for ${Math.round(openMs / 1000)} s` });
  }, (id) => alerts.resolve('breaker_open', id));
  const deployments = new Deployments(dataSource, catalogue, shards, secrets, opened, settings.egress, logger);
  const webhook = settings.alertWebhook === undefined ? undefined : new AlertWebhook(settings.alertWebhook, settings.egress, pool, clock, Math.random, logger, registry);
  webhook?.start();
  const compaction = new UsageCompaction(pool, logger);
  compaction.start();
  // Prices come from the endpoint of the environment: other deployments may be anybody's.
  const prices = new Prices(dataSource, catalogue, () => {
    const own = shards.all.find(({ deployment }) => deployment.baseUrl === undefined);
    return own === undefined ? Promise.resolve([]) : listModels(own.client);
  }, (model, before, after) => alerts.fire({ type: 'price_changed', tenantId: undefined, subject: model, occasion: `price ${model} ${JSON.stringify(after)} ${new Date(clock.nowMs()).toISOString().slice(0, 16)}`, value: `${JSON.stringify(before ?? null)} → ${JSON.stringify(after)}` }), logger);
  const breakers = new Breakers(dataSource, pool, shards, replica.id, clock, logger);
  const notifications = new Notifications(settings.databaseUrl, logger);
  const rules = new AccessRules(pool, policies, policyRevision, clock, logger);
  const running = new RunningCalls(logger);
  rules.onChange(() => {
    verifiedTokens.clear();
    void running.recheck();
  });
  await rules.open(notifications);
  const apiKeys = new ApiKeys(dataSource, pool, rules, tenants, await KeyPepper.open(settings.keyFile, pool), clock, logger);
  await deployments.open(notifications);
  await prices.open(notifications);
  await breakers.open(notifications);
  await notifications.open();
  opened.onOpen(() => void prices.refreshFromProvider()); // it could not be asked before
  const dispatcher = new Dispatcher(shards, { max: provider.retryMax, backoffMs: provider.retryBackoffMs }, providerMetrics, clock, Math.random);
  const vault = openVault({ settings, dataSource, tiers, furtherSteps: [new LeafRetention(dataSource, settings.audit.retentionDays, logger)], clock, random: Math.random, logger, registry });
  const pipeline = new CompletionPipeline(settings, catalogue, tiers, rules, running, admission, idempotency, vault.storedPayloads, new CallLimits(clock), costEngine, predictor, shards, dispatcher, conversationSecret(() => opened.current(ENVIRONMENT_KEY, provider.apiKey)), metrics, alerts, clock, logger);
  const siemSinks = new SiemSinks(dataSource, secrets, settings, alerts);
  const siemExporter = new SiemExporter({ settings, pool, seal: secrets, alerts, clock, random: Math.random, logger, registry });
  siemExporter.start();
  const health = new Health(journal, verifier, rules, shards);

  return {
    settings, logger, clock, registry, pool, dataSource, catalogue, tiers, rules, tenants, verifier, verifiedTokens, refusals, admission, pipeline, signingKeys, health, secrets, deployments, breakers, apiKeys, prices, siemSinks, vault, tls, trustedProxies, clientCertificates,
    close: async () => {
      await waitUntil(() => admission.open === 0, LAST_OUTCOMES_MS);
      await sweeper.stop();
      await refusals.close();
      await siemExporter.close();
      await vault.close();
      await notifications.close();
      tls?.close();
      prices.close();
      await alerts.close();
      await webhook?.close();
      await compaction.close();
      deployments.close();
      opened.close();
      await secrets.close();
      rules.close();
      breakers.close();
      await shards.close();
      await journal.close();
      await spool.close();
      await sequencer.stop();
      tenants.close();
      await replica.close().catch((error: unknown) => logger.warn({ err: error }, 'replica: the stop could not be noted; the heartbeat’s end will show it'));
      await dataSource.destroy();
      await pool.end();
    },
  };
}

/**
 * Opens what calls need. What cannot be opened now, since Vault is away, is opened later; what never will stops the start.
 *
 * @throws {Error} with one line, without the value
 */
async function openSecrets(settings: GatewaySettings, catalogue: Catalogue, clock: Clock, logger: Logger): Promise<{ secrets: Secrets; opened: OpenedSecrets }> {
  for (const value of secretsOfSettings(settings)) hideFromLog(value, true);
  const secrets = new Secrets(settings, { clock, random: Math.random, onSecret: hideFromLog, onNotice: (text) => logger.warn(text) });
  const environmentKey = { name: ENVIRONMENT_KEY, value: settings.provider.apiKey };
  const opened = new OpenedSecrets(secrets, [environmentKey], Math.random, logger);
  try {
    await opened.need(catalogue.deployments.flatMap(secretsOf));
    const keep = (key: string | undefined): void => {
      if (key !== undefined) hideFromLog(key, true);
    };
    keep(opened.read(environmentKey.name, environmentKey.value));
    opened.onOpen(() => keep(opened.current(environmentKey.name, environmentKey.value)));
  } catch (error) {
    opened.close();
    await secrets.close();
    throw error;
  }
  return { secrets, opened };
}

export async function waitUntil(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() >= deadlineMs) return false;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return true;
}
