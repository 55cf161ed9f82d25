import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { DataSource, EntityManager } from 'typeorm';
import type { Catalogue, Deployment } from '../catalogue/catalogue.ts';
import type { Env } from '../env.ts';
import type { OpenedSecrets } from '../secrets/opened-secrets.ts';
import { isSealed, SecretUnavailable } from '../secrets/secret-provider.ts';
import type { Secrets } from '../secrets/secrets.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { notify, type Notifications } from '../shared/notifications.ts';
import { isPem } from '../egress/connector.ts';
import { assertTlsMaterial, toDefinition, toDeployment, type DeploymentDefinition } from './deployment-definition.ts';
import { apiKeyName, secretsOf, tlsKeyName } from './deployment-secrets.ts';
import { egressFault } from '../egress/addresses.ts';
import { bypassesProxy } from '../egress/proxy-bypass.ts';
import type { Shards } from './shards.ts';
import { StoredDeployment } from './stored-deployment.ts';

const TOPIC = 'deployments';
const POLL_MS = 1_000;
/** What else has changed does not wait longer than this for a secret to open. */
const OPENING_MS = 500;

/** A deployment as the admin API shows it. */
export interface DeploymentRecord {
  id: string;
  definition: DeploymentDefinition;
  source: 'config' | 'admin';
  createdAt: Date | undefined;
  updatedAt: Date | undefined;
}

type Alongside = (manager: EntityManager, before: DeploymentDefinition | null, after: DeploymentDefinition | null) => Promise<void>;

/**
 * Which deployments there are: those of `config/models.yaml`, and over them what the admin API stored; the same id overrides. Changes act without a
 * restart, here at once, on other replicas within a second.
 */
export class Deployments {
  readonly #builtIn: ReadonlyMap<string, Deployment>;
  readonly #allowedOrigins: readonly string[];
  #stored: readonly StoredDeployment[] = [];
  #wanted: readonly Deployment[] = [];
  #signature = '';
  #turn: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly dataSource: DataSource,
    private readonly catalogue: Catalogue,
    private readonly shards: Shards,
    private readonly secrets: Pick<Secrets, 'seal' | 'open'>,
    private readonly opened: OpenedSecrets,
    private readonly egress: Env['egress'],
    private readonly logger: Logger,
  ) {
    this.#builtIn = new Map(catalogue.deployments.map((deployment) => [deployment.id, deployment]));
    // What stands in the reviewed file is the operator's word, as EGRESS_ALLOW is.
    this.#allowedOrigins = [...egress.allowedOrigins, ...catalogue.deployments.flatMap(({ baseUrl }) => (baseUrl === undefined ? [] : new URL(baseUrl).origin))];
  }

  async open(notifications: Notifications): Promise<void> {
    await this.refresh();
    const refresh = (): void => {
      this.refresh().catch((error: unknown) => this.logger.debug({ err: error }, 'deployments: not refreshed'));
    };
    notifications.on(TOPIC, refresh);
    this.opened.onOpen(() => this.#apply());
    this.#timer = setInterval(refresh, POLL_MS);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** By id. */
  list(): DeploymentRecord[] {
    const stored = this.#stored.map(toRecord);
    const overridden = new Set(stored.map(({ id }) => id));
    const builtIn = [...this.#builtIn.values()].filter(({ id }) => !overridden.has(id))
      .map((deployment): DeploymentRecord => ({ id: deployment.id, definition: toDefinition(deployment), source: 'config', createdAt: undefined, updatedAt: undefined }));
    return [...builtIn, ...stored].toSorted((left, right) => (left.id < right.id ? -1 : 1));
  }

  /** @throws {GatewayError} `not_found` */
  find(id: string): DeploymentRecord {
    const found = this.list().find((one) => one.id === id);
    if (found === undefined) throw notFound();
    return found;
  }

  /**
   * @param alongside runs in the same transaction, for the audit record
   * @throws {GatewayError} `invalid_request`, `already_exists`
   */
  async create(id: string, definition: DeploymentDefinition, alongside: Alongside): Promise<DeploymentRecord> {
    const sealed = this.#checked(await this.#withSealedSecrets(id, definition));
    await this.dataSource.transaction(async (manager) => {
      const inserted = await manager.createQueryBuilder().insert().into(StoredDeployment).values({ id, definition: sealed }).orIgnore().returning('id').execute();
      if ((inserted.raw as unknown[]).length === 0) throw new GatewayError('already_exists', { publicMessage: `There is a deployment ${JSON.stringify(id)} already. Change it by PATCH.`, param: 'id' });
      const builtIn = this.#builtIn.get(id);
      await alongside(manager, builtIn === undefined ? null : toDefinition(builtIn), sealed);
      await notify(manager, TOPIC);
    });
    await this.refresh();
    return this.find(id);
  }

  /** A deployment of the reviewed file that is changed becomes one of the admin API's. */
  async update(id: string, change: Partial<DeploymentDefinition>, alongside: Alongside): Promise<DeploymentRecord> {
    this.find(id);
    const sealed = await this.#withSealedSecrets(id, change); // before the transaction, in which nothing waits for Vault
    await this.dataSource.transaction(async (manager) => {
      const stored = await manager.findOne(StoredDeployment, { where: { id }, lock: { mode: 'pessimistic_write' } });
      const builtIn = this.#builtIn.get(id);
      const before = stored?.definition ?? (builtIn && toDefinition(builtIn));
      if (before === undefined) throw notFound();
      const after = this.#checked({ ...before, ...(change.model === undefined ? {} : { models: null }), ...sealed });
      if (stored) await manager.update(StoredDeployment, { id }, { definition: after });
      else await manager.upsert(StoredDeployment, { id, definition: after }, ['id']);
      await alongside(manager, before, after);
      await notify(manager, TOPIC);
    });
    await this.refresh();
    return this.find(id);
  }

  /** Where the reviewed file has one of the same id, that one serves again. */
  async remove(id: string, alongside: Alongside): Promise<void> {
    this.find(id);
    await this.dataSource.transaction(async (manager) => {
      const stored = await manager.findOne(StoredDeployment, { where: { id }, lock: { mode: 'pessimistic_write' } });
      if (!stored) {
        if (!this.#builtIn.has(id)) throw notFound();
        throw new GatewayError('invalid_request', { publicMessage: 'The deployment is one of config/models.yaml. Set its weight to 0 to take it out of service.' });
      }
      await manager.delete(StoredDeployment, { id });
      const builtIn = this.#builtIn.get(id);
      await alongside(manager, stored.definition, builtIn === undefined ? null : toDefinition(builtIn));
      await notify(manager, TOPIC);
    });
    await this.refresh();
  }

  /** Reads what is stored, and puts it to work where it has changed; one after another, so that an older state is not put to work after a newer one. */
  refresh(): Promise<void> {
    this.#next ??= this.#turn.catch(() => {}).then(() => {
      this.#next = undefined;
      return this.#refresh();
    });
    this.#turn = this.#next;
    return this.#next;
  }

  async #refresh(): Promise<void> {
    const stored = await this.dataSource.getRepository(StoredDeployment).find({ order: { id: 'ASC' } });
    const signature = JSON.stringify(stored);
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#stored = stored;
    const overridden = new Set(stored.map(({ id }) => id));
    this.#wanted = [
      ...[...this.#builtIn.values()].filter(({ id }) => !overridden.has(id)),
      ...stored.filter((one) => this.#mayBeCalled(one)).map(({ id, definition }) => toDeployment(id, definition, this.#allowedOrigins)),
    ];
    let late = false;
    const opening = this.opened.need(this.#wanted.flatMap(secretsOf)).then(() => {
      if (late) this.#apply();
    });
    await Promise.race([opening, sleep(OPENING_MS, undefined, { ref: false })]);
    late = true;
    this.#apply();
  }

  #apply(): void {
    this.catalogue.useDeployments(this.shards.use(this.#wanted));
  }

  /** Settings may have changed since it was stored. */
  #mayBeCalled({ id, definition }: StoredDeployment): boolean {
    const fault = this.#egressFault(definition.base_url);
    if (fault !== undefined) this.logger.error({ deployment: id }, `deployments: one is out of service: base_url ${fault}`);
    return fault === undefined;
  }

  #egressFault(baseUrl: string): string | undefined {
    if (baseUrl === 'env') return undefined;
    const fault = egressFault(baseUrl, this.#allowedOrigins);
    if (fault !== undefined) return fault;
    const url = new URL(baseUrl);
    const proxied = this.egress.proxyUrl !== undefined && url.protocol === 'https:' && !bypassesProxy(url, this.egress.noProxy);
    // The proxy resolves the name, so that nobody here sees where it leads.
    return proxied && !this.#allowedOrigins.includes(url.origin) ? 'goes through HTTPS_PROXY, so its origin must stand in EGRESS_ALLOW' : undefined;
  }

  /** What may be stored: reachable by the rules, and of a known model. */
  #checked(definition: DeploymentDefinition): DeploymentDefinition {
    const { base_url: baseUrl, model, models, api_key: apiKey, tls } = definition;
    const fault = this.#egressFault(baseUrl);
    if (fault !== undefined) throw new GatewayError('invalid_request', { publicMessage: `base_url ${fault}.`, param: 'base_url' });
    if (baseUrl === 'env' && ((apiKey ?? null) !== null || (tls ?? null) !== null)) {
      throw new GatewayError('invalid_request', { publicMessage: 'base_url "env" comes with the key and the certificate of the environment. Leave api_key and tls out, or give the URL.', param: 'base_url' });
    }
    const unknown = (models ?? [model]).find((name) => name !== '*' && !this.catalogue.resolve(name));
    if (unknown !== undefined) throw new GatewayError('invalid_request', { publicMessage: `config/models.yaml has no model ${JSON.stringify(unknown)}.`, param: 'model' });
    return Object.fromEntries(Object.entries(definition).filter(([, value]) => value !== null)) as DeploymentDefinition;
  }

  /** The same with its secrets sealed, where they are given; and with certificate and key that belong together. */
  async #withSealedSecrets<T extends Partial<DeploymentDefinition>>(id: string, given: T): Promise<T> {
    const { api_key: apiKey, tls } = given;
    const sealed = { ...given };
    if (apiKey !== undefined && apiKey !== null) sealed.api_key = isSealed(apiKey) ? await this.#assertOpens(apiKeyName(id), apiKey, 'api_key') : await this.#seal(apiKeyName(id), apiKey, 'api_key');
    if (tls !== undefined && tls !== null) {
      const key = tls.key ?? undefined;
      const openedKey = key !== undefined && isSealed(key) ? await this.#open(tlsKeyName(id), key, 'tls.key') : key;
      assertTlsMaterial({ cert: tls.cert ?? undefined, key: openedKey, ca: tls.ca ?? undefined });
      if (key !== undefined && isPem(key)) sealed.tls = { ...tls, key: await this.#seal(tlsKeyName(id), key, 'tls.key') };
    }
    return sealed;
  }

  async #seal(name: string, value: string, param: string): Promise<string> {
    try {
      return await this.secrets.seal(name, value);
    } catch (cause) {
      throw secretFault(cause, `${param} cannot be sealed: what seals it (NOVIX_KEY_FILE, AGE_IDENTITY_FILE or VAULT_…) is not set up well.`, param);
    }
  }

  async #open(name: string, value: string, param: string): Promise<string> {
    try {
      return await this.secrets.open(name, value);
    } catch (cause) {
      throw secretFault(cause, `${param} cannot be opened. Seal it for the name ${name}: npx novix secret seal --name ${name}`, param);
    }
  }

  /** What cannot be opened now could not be used later. */
  async #assertOpens(name: string, value: string, param: string): Promise<string> {
    await this.#open(name, value, param);
    return value;
  }
}

function toRecord({ id, definition, createdAt, updatedAt }: StoredDeployment): DeploymentRecord {
  return { id, definition, source: 'admin', createdAt, updatedAt };
}

function secretFault(cause: unknown, publicMessage: string, param: string): GatewayError {
  if (cause instanceof SecretUnavailable) return new GatewayError('provider_unavailable', { publicMessage: 'Secrets can be neither sealed nor opened now, since Vault does not answer. Try again shortly.', retryAfterSeconds: 5, param, cause });
  return new GatewayError('invalid_request', { publicMessage, param, cause });
}

function notFound(): GatewayError {
  return new GatewayError('not_found', { publicMessage: 'There is no such deployment.' });
}
