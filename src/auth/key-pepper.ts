import { createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Pool } from 'pg';

const PEPPER_BYTES = 32;
const SECRET_NAME = 'api-key-pepper';

/** A secret of the installation, without which the hashes of API keys say nothing. */
export class KeyPepper {
  private constructor(
    readonly id: 'file' | 'database',
    private readonly secret: Buffer,
  ) {}

  hash(key: string): Buffer {
    return createHmac('sha256', this.secret).update(key).digest();
  }

  /**
   * The peppers that keys may have been hashed with, the one for new keys first: from the key file, where there is one, and the one in the database,
   * which every replica has.
   */
  static async open(keyFile: string | undefined, pool: Pick<Pool, 'query'>): Promise<readonly [KeyPepper, ...KeyPepper[]]> {
    await pool.query('INSERT INTO gateway_secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING', [SECRET_NAME, randomBytes(PEPPER_BYTES)]);
    const { rows } = await pool.query<{ value: Buffer }>('SELECT value FROM gateway_secrets WHERE name = $1', [SECRET_NAME]);
    const database = new KeyPepper('database', rows[0]!.value);
    if (keyFile === undefined) return [database];
    const derived = hkdfSync('sha256', readFileSync(keyFile), Buffer.alloc(0), 'novix api key pepper', PEPPER_BYTES);
    return [new KeyPepper('file', Buffer.from(derived)), database];
  }
}
