import type { Logger } from 'pino';
import type { DataSource, EntityManager } from 'typeorm';
import type { Catalogue, Deployment } from '../catalogue/catalogue.ts';
import type { LocalSeal } from '../secrets/local-seal.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { notify, type Notifications } from '../shared/notifications.ts';
import { isPem } from './connector.ts';
import { assertTlsMaterial, toDefinition, toDeployment, type DeploymentDefinition } from './deployment-definition.ts';
import { apiKeyName, openedTlsKey, tlsKeyName } from './deployment-secrets.ts';
import { egressFault } from './egress.ts';
import type { Shards } from './shards.ts';
import { StoredDeployment } from './stored-deployment.ts';

const TOPIC = 'deployments';
const POLL_MS = 1_000;

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
  #stored: readonly StoredDeployment[] = [];
  #signature = '';
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly dataSource: DataSource,
    private readonly catalogue: Catalogue,
    private readonly shards: Shards,
    private readonly seal: () => LocalSeal,
    private readonly allowedOrigins: readonly string[],
    private readonly logger: Logger,
  ) {
    this.#builtIn = new Map(catalogue.deployments.map((deployment) => [deployment.id, deployment]));
  }

  async open(notifications: Notifications): Promise<void> {
    await this.refresh();
    const refresh = (): void => {
      this.refresh().catch((error: unknown) => this.logger.debug({ err: error }, 'deployments: not refreshed'));
    };
    notifications.on(TOPIC, refresh);
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
    const sealed = this.#checked(id, definition);
    await this.dataSource.transaction(async (manager) => {
      const inserted = await manager.createQueryBuilder().insert().into(StoredDeployment).values({ id, definition: sealed }).orIgnore().returning('id').execute();
      if ((inserted.raw as unknown[]).length === 0) throw new GatewayError('already_exists', { publicMessage: `There is a deployment ${JSON.stringify(id)} already. Change it by PATCH.`, param: 'id' });
      await alongside(manager, null, sealed);
      await notify(manager, TOPIC);
    });
    await this.refresh();
    return this.find(id);
  }

  /** A deployment of the reviewed file that is changed becomes one of the admin API's. */
  async update(id: string, change: Partial<DeploymentDefinition>, alongside: Alongside): Promise<DeploymentRecord> {
    await this.dataSource.transaction(async (manager) => {
      const stored = await manager.findOne(StoredDeployment, { where: { id }, lock: { mode: 'pessimistic_write' } });
      const builtIn = this.#builtIn.get(id);
      const before = stored?.definition ?? (builtIn && toDefinition(builtIn));
      if (before === undefined) throw notFound();
      const after = this.#checked(id, { ...before, ...change });
      if (stored) await manager.update(StoredDeployment, { id }, { definition: after });
      else await manager.insert(StoredDeployment, { id, definition: after });
      await alongside(manager, before, after);
      await notify(manager, TOPIC);
    });
    await this.refresh();
    return this.find(id);
  }

  /** Where the reviewed file has one of the same id, that one serves again. */
  async remove(id: string, alongside: Alongside): Promise<void> {
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

  /** Reads what is stored, and puts it to work where it has changed. */
  async refresh(): Promise<void> {
    const stored = await this.dataSource.getRepository(StoredDeployment).find({ order: { id: 'ASC' } });
    const signature = JSON.stringify(stored);
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#stored = stored;
    const overridden = new Set(stored.map(({ id }) => id));
    const wanted = [
      ...[...this.#builtIn.values()].filter(({ id }) => !overridden.has(id)),
      ...stored.map(({ id, definition }) => toDeployment(id, definition, this.allowedOrigins)),
    ];
    this.catalogue.useDeployments(this.shards.use(wanted));
  }

  /** What may be stored: reachable by the rules, of a known model, its secrets sealed. */
  #checked(id: string, { api_key: apiKey, tls, ...rest }: DeploymentDefinition): DeploymentDefinition {
    const { base_url: baseUrl, model } = rest;
    const fault = baseUrl === 'env' ? undefined : egressFault(baseUrl, this.allowedOrigins);
    if (fault !== undefined) throw new GatewayError('invalid_request', { publicMessage: `base_url ${fault}.`, param: 'base_url' });
    if (model !== '*' && !this.catalogue.resolve(model)) throw new GatewayError('invalid_request', { publicMessage: `config/models.yaml has no model ${JSON.stringify(model)}.`, param: 'model' });
    const material = { cert: tls?.cert ?? undefined, key: tls?.key ?? undefined, ca: tls?.ca ?? undefined };
    const sealedTlsKey = material.key === undefined || !(isPem(material.key) || material.key.startsWith('enc:')) ? material.key : this.#sealed(tlsKeyName(id), material.key, 'tls.key');
    if (tls !== undefined && tls !== null) assertTlsMaterial({ ...material, key: openedTlsKey(this.seal, id, sealedTlsKey) });
    return {
      ...Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null)) as typeof rest,
      ...(apiKey === undefined || apiKey === null ? {} : { api_key: this.#sealed(apiKeyName(id), apiKey, 'api_key') }),
      ...(tls === undefined || tls === null ? {} : { tls: { ...tls, ...(sealedTlsKey === undefined ? {} : { key: sealedTlsKey }) } }),
    };
  }

  #sealed(name: string, value: string, param: string): string {
    try {
      const seal = this.seal();
      if (!value.startsWith('enc:')) return seal.seal(name, value);
      seal.open(name, value); // what cannot be opened now could not be used later
      return value;
    } catch (cause) {
      throw new GatewayError('invalid_request', {
        publicMessage: value.startsWith('enc:') ? `${param} cannot be opened. Seal it for the name ${name}: npx novix secret seal --name ${name} --provider local` : `${param} cannot be sealed: NOVIX_KEY_FILE names no key.`,
        param, cause,
      });
    }
  }
}

function toRecord({ id, definition, createdAt, updatedAt }: StoredDeployment): DeploymentRecord {
  return { id, definition, source: 'admin', createdAt, updatedAt };
}

function notFound(): GatewayError {
  return new GatewayError('not_found', { publicMessage: 'There is no such deployment.' });
}
