import { setTimeout as sleep } from 'node:timers/promises';
import { cannotBeOpened, SecretUnavailable, type SecretProvider } from './secret-provider.ts';
import { VaultClient } from './vault-client.ts';
import { VaultSession, type VaultSessionOptions } from './vault-session.ts';
import type { VaultSettings } from './vault-settings.ts';

const PREFIX = 'enc:v1:vault:';
const ATTEMPTS_MAX = 3;
const BACKOFF_MS = 150;
/** Attempts are begun only within this time: who waits for an answer is told early rather than late. */
const PATIENCE_MS = 4_000;

/**
 * Seals secrets with a key of the transit engine of HashiCorp Vault or OpenBao: the key never leaves it. The name of a secret is associated data.
 *
 * @see https://developer.hashicorp.com/vault/api-docs/secret/transit
 */
export class VaultTransit implements SecretProvider {
  readonly #client: VaultClient;
  readonly #session: VaultSession;

  constructor(
    private readonly settings: VaultSettings,
    private readonly options: VaultSessionOptions,
  ) {
    this.#client = new VaultClient(settings);
    this.#session = new VaultSession(this.#client, settings.login, options);
  }

  async seal(name: string, value: string): Promise<string> {
    const { ciphertext } = await this.#ask('encrypt', name, { plaintext: base64(value) });
    if (typeof ciphertext !== 'string' || !/^vault:v\d+:/.test(ciphertext)) throw new SecretUnavailable(`${name}: cannot be sealed now: Vault answers without a ciphertext`, false);
    return `${PREFIX}${Buffer.from(ciphertext).toString('base64url')}`;
  }

  async open(name: string, sealed: string): Promise<string> {
    const ciphertext = Buffer.from(sealed.slice(PREFIX.length), 'base64url').toString();
    // What has never been Vault’s is not sent there: it could be a plain value.
    if (!/^vault:v\d+:[A-Za-z0-9+/]+=*$/.test(ciphertext)) throw cannotBeOpened(name);
    const { plaintext } = await this.#ask('decrypt', name, { ciphertext });
    if (typeof plaintext !== 'string') throw new SecretUnavailable(`${name}: cannot be opened now: Vault answers without a plaintext`, false);
    return Buffer.from(plaintext, 'base64').toString();
  }

  async close(): Promise<void> {
    this.#session.close();
    await this.#client.close();
  }

  async #ask(operation: 'encrypt' | 'decrypt', name: string, fields: Readonly<Record<string, string>>): Promise<Readonly<Record<string, unknown>>> {
    const { clock, random } = this.options;
    const path = [...this.settings.transitMount.split('/'), operation, this.settings.transitKey].map(encodeURIComponent).join('/');
    const startedMs = clock.monotonicMs();
    let again = true;
    for (let attempt = 1; ; attempt++) {
      try {
        const token = await this.#session.token();
        const { verdict, body } = await this.#client.ask('POST', path, token, { ...fields, associated_data: base64(name) });
        if (verdict.kind === 'ok') return (body['data'] ?? {}) as Record<string, unknown>;
        if (verdict.kind === 'refused') throw refusal(operation, name, verdict.because);
        if (verdict.kind === 'denied') {
          // Once only: a new token that is not accepted either is no matter of tokens.
          if (this.#session.drop(token) && again) {
            again = false;
            continue;
          }
          throw new SecretUnavailable(this.settings.login.type === 'token' ? 'Vault does not accept VAULT_TOKEN: it has ended, or its policy does not allow this' : 'Vault’s policy does not allow this to the role that logs in', false);
        }
        throw new SecretUnavailable(verdict.reason, verdict.soon);
      } catch (error) {
        if (!(error instanceof SecretUnavailable)) throw error;
        if (!error.soon || attempt >= ATTEMPTS_MAX || clock.monotonicMs() - startedMs > PATIENCE_MS) {
          throw new SecretUnavailable(`${name}: cannot be ${operation === 'encrypt' ? 'sealed' : 'opened'} now: ${error.message}`, false, { cause: error });
        }
      }
      const ceilingMs = BACKOFF_MS * 2 ** attempt;
      await sleep(ceilingMs / 2 + (ceilingMs / 2) * random());
    }
  }
}

function refusal(operation: 'encrypt' | 'decrypt', name: string, because: 'too_old' | 'no_key' | 'other'): Error {
  if (because === 'no_key') return new Error(`${name}: Vault has no key of the name in VAULT_TRANSIT_KEY`);
  if (operation === 'encrypt') return new Error(`${name}: cannot be sealed: Vault refuses it; the key in VAULT_TRANSIT_KEY has to be of a type with associated data, such as aes256-gcm96`);
  if (because === 'too_old') return new Error(`${name}: was sealed with a version of the key that Vault no longer opens (min_decryption_version); seal it again`);
  return cannotBeOpened(name);
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}
