import type { Logger } from 'pino';
import type { DataSource, EntityManager } from 'typeorm';
import type { Catalogue, Model, ModelPrice } from '../catalogue/catalogue.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { notify, type Notifications } from '../shared/notifications.ts';
import { findPriceFault, isSamePrice, lacksReviewedTier, readListedPrice, soldBy, toModelPrice, toPriceDefinition, type PriceDefinition } from './price-definition.ts';

const TOPIC = 'prices';
const POLL_MS = 2_000;
const REFRESH_MS = 3_600_000;
/** After a start other things come first. */
const FIRST_REFRESH_MS = 5_000;

export type PriceSource = 'admin' | 'provider' | 'config';

/** A model's price as it stands. */
export interface PriceRecord {
  model: string;
  revision: number;
  source: PriceSource;
  effectiveAt: string;
  definition: PriceDefinition | undefined;
}

interface Row {
  revision: string;
  model: string;
  source: 'admin' | 'provider';
  price: PriceDefinition | null;
  effective_at: Date;
}

/** Lists the provider's models, as its JSON answer has them. */
export type ListModels = () => Promise<readonly unknown[]>;

/**
 * What models cost: what an admin says, else what the provider lists, else what the reviewed file says. Each change is a revision with its time, and a call
 * is charged by the one under which it was admitted.
 */
export class Prices {
  #rows: readonly Row[] = [];
  #signature = '';
  #poll: NodeJS.Timeout | undefined;
  #refresh: NodeJS.Timeout | undefined;
  #first: NodeJS.Timeout | undefined;
  /** Models whose listed price is not believed, and has been told of. */
  readonly #disbelieved = new Set<string>();

  constructor(
    private readonly dataSource: DataSource,
    private readonly catalogue: Catalogue,
    private readonly listModels: ListModels,
    private readonly onChange: (model: string, before: PriceDefinition | undefined, after: PriceDefinition) => void,
    private readonly logger: Logger,
  ) {}

  async open(notifications: Notifications): Promise<void> {
    await this.#load();
    const look = (): void => {
      this.#load().catch((error: unknown) => this.logger.debug({ err: error }, 'prices: not refreshed'));
    };
    notifications.on(TOPIC, look);
    this.#poll = setInterval(look, POLL_MS);
    this.#refresh = setInterval(() => void this.refreshFromProvider(), REFRESH_MS);
    this.#refresh.unref();
    this.#first = setTimeout(() => void this.refreshFromProvider(), FIRST_REFRESH_MS);
    this.#first.unref();
  }

  close(): void {
    clearInterval(this.#poll);
    clearInterval(this.#refresh);
    clearTimeout(this.#first);
  }

  /** Every model, by id. */
  list(): PriceRecord[] {
    return this.catalogue.reviewedModels.map((model): PriceRecord => {
      const { id, price } = model;
      const row = this.#current(model);
      if (row !== undefined) return { model: id, revision: Number(row.revision), source: row.source, effectiveAt: row.effective_at.toISOString(), definition: row.price! };
      return { model: id, revision: 0, source: 'config', effectiveAt: price === undefined ? '' : `${price.asOf}-01T00:00:00.000Z`, definition: price && toPriceDefinition(price) };
    }).toSorted((left, right) => (left.model < right.model ? -1 : 1));
  }

  /** @throws {GatewayError} `model_not_found` */
  find(model: string): PriceRecord {
    const found = this.list().find((record) => record.model === model);
    if (found === undefined) throw new GatewayError('model_not_found', { publicMessage: `config/models.yaml has no model with the id ${JSON.stringify(model)}.`, param: 'model' });
    return found;
  }

  /**
   * @param definition undefined takes an admin's price back
   * @param alongside runs in the same transaction, for the audit record
   * @throws {GatewayError} `invalid_request`, naming the field, for what is no price of all that the model sells; `not_found` where there is none to take back
   */
  async set(model: string, definition: PriceDefinition | undefined, alongside: (manager: EntityManager, before: PriceRecord) => Promise<void>): Promise<PriceRecord> {
    const before = this.find(model);
    const fault = definition && findPriceFault(definition, this.catalogue.reviewedModels.find(({ id }) => id === model)!);
    if (fault !== undefined) throw new GatewayError('invalid_request', { publicMessage: `${fault.field} ${fault.fault}.`, param: fault.field });
    await this.dataSource.transaction(async (manager) => {
      if (definition === undefined && !(await isOverridden(manager, model))) throw new GatewayError('not_found', { publicMessage: `No admin has set a price of ${model}.`, param: 'model' });
      await insert(manager, model, 'admin', definition);
      await alongside(manager, before);
      await notify(manager, TOPIC);
    });
    await this.#load();
    return this.find(model);
  }

  /** Asks the provider for its prices, and keeps what has changed. Never rejects: the prices before serve on. */
  async refreshFromProvider(): Promise<void> {
    try {
      const entries = await this.listModels();
      const byId = new Map(entries.map((entry) => [(entry as { id?: unknown } | null)?.id, entry]));
      for (const model of this.catalogue.reviewedModels) {
        const entry = byId.get(model.id);
        const listed = readListedPrice(entry, model);
        if (listed === undefined) {
          // Of images the list says nothing, nor of a model that it has not.
          if (entry !== undefined && !soldBy(model).images && !this.#disbelieved.has(model.id)) {
            this.#disbelieved.add(model.id);
            this.logger.warn({ model: model.id, listed: entry }, 'prices: what the provider lists is no whole price, and is not believed');
          }
          continue;
        }
        this.#disbelieved.delete(model.id);
        const known = this.#latest(model.id, 'provider')?.price ?? (model.price && toPriceDefinition(model.price));
        if (known !== undefined && isSamePrice(listed, known, model)) continue;
        this.logger.warn({ model: model.id, before: known, after: listed }, 'prices: the provider lists another price');
        await this.dataSource.transaction(async (manager) => {
          await insert(manager, model.id, 'provider', listed);
          await notify(manager, TOPIC);
        });
        this.onChange(model.id, known, listed);
      }
      await this.#load();
    } catch (error) {
      this.logger.warn({ err: error }, 'prices: the provider’s list could not be had');
    }
  }

  async #load(): Promise<void> {
    const rows = await this.dataSource.query<Row[]>('SELECT DISTINCT ON (model, source) revision, model, source, price, effective_at FROM price_revisions ORDER BY model, source, revision DESC');
    const signature = rows.map(({ revision }) => revision).join();
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#rows = rows;
    const prices = new Map<string, ModelPrice>();
    for (const model of this.catalogue.reviewedModels) {
      const row = this.#current(model);
      if (row !== undefined) prices.set(model.id, toModelPrice(row.price!, model, Number(row.revision), row.source, row.effective_at)!);
    }
    this.catalogue.usePrices(prices);
  }

  /** What was stored before the model sold something more, or long prompts cost more, is no price of it any longer. */
  #current(model: Model): Row | undefined {
    const [admin, provider] = [this.#latest(model.id, 'admin'), this.#latest(model.id, 'provider')].map((row) => (row?.price && findPriceFault(row.price, model) === undefined ? row : undefined));
    return admin ?? (provider !== undefined && lacksReviewedTier(provider.price!, model) ? undefined : provider);
  }

  #latest(model: string, source: Row['source']): Row | undefined {
    return this.#rows.find((row) => row.model === model && row.source === source);
  }
}

async function isOverridden(manager: EntityManager, model: string): Promise<boolean> {
  const [last] = await manager.query<{ overridden: boolean }[]>("SELECT price IS NOT NULL AS overridden FROM price_revisions WHERE model = $1 AND source = 'admin' ORDER BY revision DESC LIMIT 1", [model]);
  return last?.overridden === true;
}

async function insert(manager: EntityManager, model: string, source: Row['source'], price: PriceDefinition | undefined): Promise<void> {
  await manager.query('INSERT INTO price_revisions (model, source, price) VALUES ($1, $2, $3)', [model, source, price === undefined ? null : JSON.stringify(price)]);
}
