import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { access, link, mkdir, open, readFile, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { isUuid } from '../shared/uuid-text.ts';
import { RootGone, type EpochName, type EpochRoots } from './epoch-roots.ts';
import { CannotOpen, withLengths } from './record-cipher.ts';
import type { MarkedPlace, RootPlace } from './root-place.ts';

const ROOT_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const CIPHER = 'aes-256-gcm';

/**
 * One file for each epoch, in a folder that all replicas share and that no backup of the database includes. On a disk that writes elsewhere what is written
 * over, or keeps snapshots, destruction is only as good as the disk's own: use Vault there.
 */
export class FileRoots implements EpochRoots, MarkedPlace {
  constructor(
    private readonly folder: string,
    private readonly place: Pick<RootPlace, 'assertKnown'>,
  ) {}

  async seal(epoch: EpochName, bytes: Buffer): Promise<Buffer> {
    await this.place.assertKnown(this);
    const root = randomBytes(ROOT_BYTES);
    await this.#make(this.#path(epoch.id), root);
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, root, nonce).setAAD(associatedData(epoch));
    const sealed = Buffer.concat([nonce, cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
    root.fill(0);
    return sealed;
  }

  async open(epoch: EpochName, sealed: Buffer): Promise<Buffer> {
    await this.place.assertKnown(this);
    const root = await this.#read(epoch.id);
    try {
      const decipher = createDecipheriv(CIPHER, root, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
      decipher.setAAD(associatedData(epoch)).setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
      return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, sealed.length - TAG_BYTES)), decipher.final()]);
    } catch (cause) {
      await access(this.#path(epoch.id)).catch(() => Promise.reject(new RootGone(epoch.id))); // it was being written over as it was read
      throw new CannotOpen(cause);
    } finally {
      root.fill(0);
    }
  }

  async destroy(epochId: string): Promise<void> {
    await this.place.assertKnown(this);
    const path = this.#path(epochId);
    const doomed = `${path}.doomed`;
    // Out of the way first, so that who reads finds either the root or none.
    await rename(path, doomed).catch(unlessMissing);
    try {
      const file = await open(doomed, 'r+');
      try {
        await file.write(randomBytes(ROOT_BYTES), 0, ROOT_BYTES, 0);
        await file.sync();
      } finally {
        await file.close();
      }
      await unlink(doomed);
      await this.#syncFolder();
    } catch (error) {
      unlessMissing(error);
    }
  }

  async mark(id: string): Promise<void> {
    await this.#make(this.#path(id, 'place'), Buffer.from('Roots of payload keys are kept in this folder.\n'));
  }

  async hasMark(id: string): Promise<boolean> {
    return access(this.#path(id, 'place')).then(() => true, (error: unknown) => {
      unlessMissing(error);
      return false;
    });
  }

  /** Whole at once, and on the disk before anything is sealed with it: a root that a power cut takes would close its epoch for good. */
  async #make(path: string, bytes: Buffer): Promise<void> {
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
    const draft = `${path}.${process.pid}`;
    const file = await open(draft, 'wx', 0o600);
    try {
      await file.write(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    try {
      await link(draft, path); // unlike a rename, it never replaces one
    } finally {
      await unlink(draft);
    }
    await this.#syncFolder();
  }

  async #read(epochId: string): Promise<Buffer> {
    try {
      return await readFile(this.#path(epochId));
    } catch (error) {
      unlessMissing(error);
      throw new RootGone(epochId);
    }
  }

  async #syncFolder(): Promise<void> {
    const folder = await open(this.folder, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  #path(id: string, kind: 'root' | 'place' = 'root'): string {
    if (!isUuid(id)) throw new Error('an epoch’s id is a UUID'); // it becomes part of a path
    return join(this.folder, `${id}.${kind}`);
  }
}

function associatedData({ id, tenantId }: EpochName): Buffer {
  return withLengths('novix payload epoch', id, tenantId);
}

function unlessMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}
