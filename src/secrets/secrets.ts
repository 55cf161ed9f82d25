import type { Clock } from '../shared/clock.ts';
import { openLocalSeal } from './local-seal.ts';
import { cannotBeOpened, providerOf, type ProviderName, type SecretProvider } from './secret-provider.ts';
import type { SecretSettings } from './secret-settings.ts';
import type { VaultTransit } from './vault-transit.ts';

export interface SecretsOptions {
  clock: Clock;
  random: () => number;
  /** Called with each secret in plain text, so that it is kept out of the log. */
  onSecret: (value: string) => void;
  /** One line for operators. */
  onNotice: (text: string) => void;
}

/**
 * Seals and opens secrets by whichever provider a value names. Providers are made, and their code loaded, when they are first needed.
 */
export class Secrets implements SecretProvider {
  /** Who seals where nobody is named. */
  readonly defaultProvider: ProviderName;
  #age: Promise<SecretProvider> | undefined;
  #vault: Promise<VaultTransit> | undefined;

  constructor(
    private readonly settings: SecretSettings,
    private readonly options: SecretsOptions,
  ) {
    this.defaultProvider = settings.vault !== undefined ? 'vault' : settings.ageIdentityFile !== undefined ? 'age' : 'local';
  }

  async seal(name: string, value: string, provider: ProviderName = this.defaultProvider): Promise<string> {
    this.options.onSecret(value);
    return (await this.#provider(provider, `${name}: cannot be sealed`)).seal(name, value);
  }

  async open(name: string, sealed: string): Promise<string> {
    const provider = providerOf(sealed);
    if (provider === undefined) throw cannotBeOpened(name);
    const value = await (await this.#provider(provider, `${name}: cannot be opened`)).open(name, sealed);
    this.options.onSecret(value);
    return value;
  }

  async close(): Promise<void> {
    const vault = await this.#vault?.catch(() => undefined); // one that could not be made has nothing to close
    await vault?.close();
  }

  async #provider(name: ProviderName, complaint: string): Promise<SecretProvider> {
    const { ageIdentityFile, vault } = this.settings;
    if (name === 'local') {
      const seal = openLocalSeal(this.settings);
      return { seal: async (...args) => seal.seal(...args), open: async (...args) => seal.open(...args) };
    }
    if (name === 'age') {
      if (ageIdentityFile === undefined) throw new Error(`${complaint}: AGE_IDENTITY_FILE is not set`);
      return (this.#age ??= import('./age-seal.ts').then(({ AgeSeal }) => AgeSeal.open(ageIdentityFile)));
    }
    if (vault === undefined) throw new Error(`${complaint}: VAULT_ADDR is not set`);
    const { clock, random, onSecret, onNotice } = this.options;
    return (this.#vault ??= import('./vault-transit.ts').then(({ VaultTransit: Transit }) => new Transit(vault, { clock, random, onToken: onSecret, onNotice })));
  }
}
