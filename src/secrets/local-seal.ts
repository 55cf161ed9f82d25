import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cannotBeOpened } from './secret-provider.ts';
import type { SecretSettings } from './secret-settings.ts';

/** What a sealed value begins with: version and provider. */
const PREFIX = 'enc:v1:local:';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/**
 * The key of the settings: `NOVIX_KEY_FILE`, or outside production one under the data folder, made where there is none.
 *
 * @throws {Error} with one clear line
 */
export function openLocalSeal({ keyFile, dataDir, production }: Pick<SecretSettings, 'keyFile' | 'dataDir' | 'production'>): LocalSeal {
  if (keyFile === undefined && production) throw new Error('NOVIX_KEY_FILE: required in production for what is sealed locally');
  return LocalSeal.open(keyFile ?? join(dataDir, 'secret.key'), keyFile === undefined);
}

/**
 * Seals secrets with a key in a local file: for development, and where there is nothing better. Each value is bound to the name of what it is for,
 * so that a sealed value moved elsewhere does not open.
 */
export class LocalSeal {
  readonly #key: Buffer;

  private constructor(key: Buffer) {
    this.#key = key;
  }

  /**
   * @param path of 32 bytes in base64
   * @param make whether to make the file where there is none
   * @throws {Error} with one clear line
   */
  static open(path: string, make: boolean): LocalSeal {
    if (make && !existsSync(path)) {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      try {
        // Whole at once: another process must not read half of it.
        const draft = `${path}.${process.pid}`;
        writeFileSync(draft, `${randomBytes(KEY_BYTES).toString('base64')}\n`, { mode: 0o600 });
        try {
          linkSync(draft, path);
        } finally {
          unlinkSync(draft);
        }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error; // another process was quicker: its key is as good
      }
    }
    const key = Buffer.from(readFileSync(path, 'utf8').trim(), 'base64');
    if (key.length !== KEY_BYTES) throw new Error('NOVIX_KEY_FILE: expected 32 bytes in base64, as "openssl rand -base64 32" prints them');
    return new LocalSeal(key);
  }

  seal(name: string, value: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce).setAAD(Buffer.from(name));
    const sealed = Buffer.concat([cipher.update(value, 'utf8'), cipher.final()]);
    return `${PREFIX}${Buffer.concat([nonce, sealed, cipher.getAuthTag()]).toString('base64url')}`;
  }

  /** @throws {Error} one text for whatever is wrong, without the value */
  open(name: string, sealed: string): string {
    try {
      if (!sealed.startsWith(PREFIX)) throw new Error('another provider');
      const bytes = Buffer.from(sealed.slice(PREFIX.length), 'base64url');
      if (bytes.length < NONCE_BYTES + TAG_BYTES) throw new Error('too short');
      const decipher = createDecipheriv('aes-256-gcm', this.#key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
      decipher.setAAD(Buffer.from(name)).setAuthTag(bytes.subarray(bytes.length - TAG_BYTES));
      return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, bytes.length - TAG_BYTES)), decipher.final()]).toString();
    } catch (cause) {
      throw cannotBeOpened(name, cause);
    }
  }
}
