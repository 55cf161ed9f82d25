/** Who can seal: the names that stand in a sealed value, `enc:v1:<provider>:…`. */
export const PROVIDER_NAMES = ['local', 'age', 'vault'] as const;
export type ProviderName = (typeof PROVIDER_NAMES)[number];

/** Seals values, each bound to the name of what it is for: a sealed value that is moved elsewhere does not open. */
export interface SecretProvider {
  /** @returns `enc:v1:<provider>:…` */
  seal(name: string, value: string): Promise<string>;
  /** @throws {SecretUnavailable} where it may open later, any other error where it never will; one line each, without the value */
  open(name: string, sealed: string): Promise<string>;
}

/** It cannot be opened, or sealed, now; later it may. Everything else that goes wrong with a secret is for good. */
export class SecretUnavailable extends Error {
  override readonly name = 'SecretUnavailable';

  /** @param soon whether trying again at once makes sense */
  constructor(message: string, readonly soon: boolean, options?: ErrorOptions) {
    super(message, options);
  }
}

/** Whether a value claims to be sealed: what follows `enc:` is never taken for plain text. */
export function isSealed(value: string): boolean {
  return value.startsWith('enc:');
}

/** Who sealed it; undefined for what is no sealed value of anybody known. */
export function providerOf(sealed: string): ProviderName | undefined {
  const named = /^enc:v1:([a-z]+):[\w-]+$/.exec(sealed)?.[1];
  return PROVIDER_NAMES.find((provider) => provider === named);
}

/** The line for a value that its provider does not open, whatever the reason: to say more would help only who tries values. */
export function cannotBeOpened(name: string, cause?: unknown): Error {
  return new Error(`${name}: cannot be opened; it was sealed for another name or with another key, is damaged, or is no sealed value (${PROVIDER_NAMES.map((provider) => `enc:v1:${provider}:…`).join(', ')})`, { cause });
}
