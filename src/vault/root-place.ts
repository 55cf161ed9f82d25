import type { Pool } from 'pg';
import { uuid } from '../shared/uuid.ts';
import type { Keeper } from './root-keepers.ts';

/** Where roots are kept, as far as marks can be left there. */
export interface MarkedPlace {
  mark(id: string): Promise<void>;
  hasMark(id: string): Promise<boolean>;
}

/**
 * Knows the place where this installation's roots are by a mark in it, whose name the database has. A replica that looks into another folder, or asks another
 * Vault, finds no root there: without the mark it would take all of them for destroyed, and say so for good.
 */
export class RootPlace {
  #isKnown = false;

  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly keeper: Keeper,
  ) {}

  /** @throws {Error} where it is another place */
  async assertKnown(place: MarkedPlace): Promise<void> {
    if (this.#isKnown) return;
    const id = (await this.#find()) ?? (await this.#claim(place));
    if (!(await place.hasMark(id))) {
      const setting = this.keeper === 'file' ? 'NOVIX_PAYLOAD_KEY_DIR' : 'VAULT_ADDR, VAULT_NAMESPACE or VAULT_TRANSIT_MOUNT';
      throw new Error(`${setting}: this is not where the payload keys of this installation are (no mark ${id}); all replicas need the same place. Where it is lost for good, delete ${this.#name} from gateway_secrets`);
    }
    this.#isKnown = true;
  }

  get #name(): string {
    return `payload-roots-${this.keeper}`;
  }

  async #find(): Promise<string | undefined> {
    const { rows: [row] } = await this.pool.query<{ value: Buffer }>('SELECT value FROM gateway_secrets WHERE name = $1', [this.#name]);
    return row?.value.toString();
  }

  /** The mark first: the database must not remember one that was never made. */
  async #claim(place: MarkedPlace): Promise<string> {
    const id = uuid();
    await place.mark(id);
    await this.pool.query('INSERT INTO gateway_secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING', [this.#name, Buffer.from(id)]);
    return (await this.#find())!;
  }
}
