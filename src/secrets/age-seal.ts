import { Decrypter, Encrypter, generateHybridIdentity, identityToRecipient } from 'age-encryption';
import { writeFileSync } from 'node:fs';
import { readIdentities } from './age-identities.ts';
import { cannotBeOpened, type SecretProvider } from './secret-provider.ts';

const PREFIX = 'enc:v1:age:';

/** Seals secrets to a post-quantum (ML-KEM-768 and X25519) age identity in a file. */
export class AgeSeal implements SecretProvider {
  private constructor(
    private readonly encrypter: Encrypter,
    private readonly decrypter: Decrypter,
  ) {}

  /** @throws {Error} with one clear line where the file holds anything but post-quantum identities */
  static async open(path: string): Promise<AgeSeal> {
    const identities = readIdentities(path);
    const [encrypter, decrypter] = [new Encrypter(), new Decrypter()];
    try {
      encrypter.addRecipient(await identityToRecipient(identities[0]));
      for (const identity of identities) decrypter.addIdentity(identity);
    } catch (cause) {
      throw new Error('AGE_IDENTITY_FILE: holds an identity that is damaged', { cause });
    }
    return new AgeSeal(encrypter, decrypter);
  }

  async seal(name: string, value: string): Promise<string> {
    // An age file has no associated data, so the name stands within.
    return `${PREFIX}${Buffer.from(await this.encrypter.encrypt(JSON.stringify([name, value]))).toString('base64url')}`;
  }

  async open(name: string, sealed: string): Promise<string> {
    try {
      const [sealedFor, value] = JSON.parse(await this.decrypter.decrypt(Buffer.from(sealed.slice(PREFIX.length), 'base64url'), 'text')) as [unknown, unknown];
      if (sealedFor !== name || typeof value !== 'string') throw new Error('sealed for another name');
      return value;
    } catch (error) {
      // What JSON.parse complains of may quote the text, so it is no cause.
      throw cannotBeOpened(name, error instanceof SyntaxError ? undefined : error);
    }
  }
}

/**
 * Makes an identity file, readable by its owner alone.
 *
 * @returns the recipient, which is public
 * @throws {Error} where the file is there already: what was sealed with it would be lost
 */
export async function makeIdentityFile(path: string): Promise<string> {
  const identity = await generateHybridIdentity();
  const recipient = await identityToRecipient(identity);
  try {
    writeFileSync(path, `# public key: ${recipient}\n${identity}\n`, { mode: 0o600, flag: 'wx' });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Error(code === 'EEXIST' ? `${path}: is there already, and is not overwritten: what was sealed with it would be lost` : `${path}: cannot be written (${code})`, { cause: error });
  }
  return recipient;
}
