import { parseVault, type VaultSettings } from './vault-settings.ts';

/** What sealing and opening needs of the settings. */
export interface SecretSettings {
  production: boolean;
  dataDir: string;
  /** Key of the secrets that are sealed locally; undefined: made under the data folder, outside production only. */
  keyFile: string | undefined;
  /** Post-quantum age identities, which open what was sealed to them. */
  ageIdentityFile: string | undefined;
  /** A Vault that seals and opens; undefined where there is none. */
  vault: VaultSettings | undefined;
}

/** @param faults gets one line per fault, never with a value */
export function parseSecretSettings(text: (name: string) => string | undefined, faults: string[]): SecretSettings {
  return {
    production: text('NODE_ENV') === 'production', dataDir: text('NOVIX_DATA_DIR') ?? '.novix', keyFile: text('NOVIX_KEY_FILE'), ageIdentityFile: text('AGE_IDENTITY_FILE'), vault: parseVault(text, faults),
  };
}
