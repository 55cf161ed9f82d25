import { RootGone, type EpochName, type EpochRoots } from './epoch-roots.ts';
import { CannotOpen, withLengths } from './record-cipher.ts';
import type { MarkedPlace, RootPlace } from './root-place.ts';

export type VaultMethod = 'GET' | 'POST' | 'DELETE';

/** How a request to Vault ended, as far as roots need to know. */
export type VaultReply =
  | { kind: 'ok'; data: Readonly<Record<string, unknown>> }
  /** There is no such key. */
  | { kind: 'missing' }
  /** Vault will not do it: what it was given is not what it once gave out. */
  | { kind: 'refused' };

/** Logged in, and below `/v1/`. Rejects where Vault cannot be asked, or may not be. */
export type AskVault = (method: VaultMethod, path: string, body?: Readonly<Record<string, unknown>>) => Promise<VaultReply>;

/**
 * One key of Vault's transit engine (HashiCorp Vault or OpenBao) for each epoch; the key never leaves it. Its policy needs create, read, update and delete on
 * `<mount>/keys/novix-payload-*`, and update on `<mount>/encrypt/…` and `<mount>/decrypt/…` of the same names.
 *
 * @see https://developer.hashicorp.com/vault/api-docs/secret/transit
 */
export class VaultRoots implements EpochRoots, MarkedPlace {
  constructor(
    private readonly ask: AskVault,
    private readonly place: Pick<RootPlace, 'assertKnown'>,
    private readonly mount = 'transit',
  ) {}

  async seal(epoch: EpochName, bytes: Buffer): Promise<Buffer> {
    await this.place.assertKnown(this);
    const key = keyName(epoch.id);
    await this.#create(key);
    const { ciphertext } = await this.#done('POST', `encrypt/${key}`, { plaintext: bytes.toString('base64'), associated_data: associatedData(epoch) });
    if (typeof ciphertext !== 'string' || !ciphertext.startsWith('vault:')) throw new Error('Vault answers without a ciphertext');
    return Buffer.from(ciphertext);
  }

  async open(epoch: EpochName, sealed: Buffer): Promise<Buffer> {
    await this.place.assertKnown(this);
    const key = keyName(epoch.id);
    const reply = await this.ask('POST', `${this.mount}/decrypt/${key}`, { ciphertext: sealed.toString(), associated_data: associatedData(epoch) });
    if (reply.kind === 'ok' && typeof reply.data['plaintext'] === 'string') return Buffer.from(reply.data['plaintext'], 'base64');
    // Vault tells a key that is gone from a ciphertext that is not its own by words alone, so it is asked.
    if (!(await this.#exists(key))) throw new RootGone(epoch.id);
    throw new CannotOpen();
  }

  async destroy(epochId: string): Promise<void> {
    await this.place.assertKnown(this);
    const key = keyName(epochId);
    if (!(await this.#exists(key))) return;
    await this.#done('POST', `keys/${key}/config`, { deletion_allowed: true });
    await this.#done('DELETE', `keys/${key}`);
    if (await this.#exists(key)) throw new Error(`Vault still has the key ${key}`);
  }

  /** A key that never seals anything. */
  async mark(id: string): Promise<void> {
    await this.#create(markName(id));
  }

  async hasMark(id: string): Promise<boolean> {
    return this.#exists(markName(id));
  }

  async #create(key: string): Promise<void> {
    await this.#done('POST', `keys/${key}`, { type: 'aes256-gcm96', exportable: false, allow_plaintext_backup: false });
  }

  async #exists(key: string): Promise<boolean> {
    const reply = await this.ask('GET', `${this.mount}/keys/${key}`);
    if (reply.kind === 'refused') throw new Error(`Vault refuses to say whether it has the key ${key}`);
    return reply.kind === 'ok';
  }

  async #done(method: VaultMethod, path: string, body?: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, unknown>>> {
    const reply = await this.ask(method, `${this.mount}/${path}`, body);
    if (reply.kind !== 'ok') throw new Error(`Vault refuses ${method} ${path.split('/', 1)[0]!}: see the policy of its token, and VAULT_TRANSIT_MOUNT`);
    return reply.data;
  }
}

function keyName(epochId: string): string {
  return `novix-payload-${epochId}`;
}

function markName(id: string): string {
  return `novix-payload-place-${id}`;
}

function associatedData({ id, tenantId }: EpochName): string {
  return withLengths('novix payload epoch', id, tenantId).toString('base64');
}
