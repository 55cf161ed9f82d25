import { appendFile, mkdir, open, readdir, readFile, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Entries, Verdict } from './operation.ts';

/** What of an operation is kept. */
export interface SpooledOutcome {
  entries: Entries;
  otherwise?: { verdict: Verdict; entries: Entries };
}

const NAME = /^outcomes-([0-9a-f-]{36})\.jsonl$/;

/**
 * Outcomes that could not reach the database, one JSON line each in a file of this process's own, forced to disk before `append` resolves.
 * Replaying is harmless however often: a settlement claims its hold once. A file is deleted when all of it has been replayed and nobody writes to it.
 */
export class Spool {
  readonly #path: string;
  #file: FileHandle | undefined;
  /** A write that failed may have left half a line. */
  #torn = false;
  #writing: Promise<void> = Promise.resolve();
  #replaying: Promise<void> | undefined;
  #replayAgain = false;

  constructor(
    private readonly dir: string,
    private readonly replicaId: string,
    /** Whether another replica is certain to write no more. */
    private readonly isDead: (replicaId: string) => Promise<boolean>,
    private readonly logger: Logger,
  ) {
    this.#path = join(dir, `outcomes-${replicaId}.jsonl`);
  }

  async open(): Promise<void> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 });
  }

  /** Resolves once the outcome is on disk. Bounded by the calls in flight, since nothing is admitted while the database is gone. */
  append(outcome: SpooledOutcome): Promise<void> {
    const done = this.#writing.then(() => this.#append(outcome));
    this.#writing = done.catch(() => undefined); // the caller hears of it; the next append tries afresh
    return done;
  }

  /**
   * Commits what this process and dead ones left behind. Asked again while it is at it, it looks once more.
   *
   * @throws what `commit` throws; what was not replayed stays
   */
  replay(commit: (outcome: SpooledOutcome) => Promise<Verdict>): Promise<void> {
    if (this.#replaying) this.#replayAgain = true;
    this.#replaying ??= this.#replayAll(commit).finally(() => {
      this.#replaying = undefined;
    });
    return this.#replaying;
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#file?.close();
    this.#file = undefined;
  }

  async #append(outcome: SpooledOutcome): Promise<void> {
    this.#file ??= await this.#create();
    try {
      await writeAll(this.#file, Buffer.from(`${this.#torn ? '\n' : ''}${JSON.stringify(outcome)}\n`));
      await this.#file.datasync();
      this.#torn = false;
    } catch (error) {
      this.#torn = true;
      throw error;
    }
  }

  async #create(): Promise<FileHandle> {
    const file = await open(this.#path, 'a', 0o600);
    // The name must survive a power failure too.
    const dir = await open(this.dir, 'r');
    await dir.sync();
    await dir.close();
    return file;
  }

  async #replayAll(commit: (outcome: SpooledOutcome) => Promise<Verdict>): Promise<void> {
    do {
      this.#replayAgain = false;
      for (const name of await readdir(this.dir)) {
        const replicaId = NAME.exec(name)?.[1];
        if (replicaId === undefined) continue;
        const own = replicaId === this.replicaId;
        if (own) await this.#replayFile(join(this.dir, name), true, commit);
        else if (await this.isDead(replicaId)) await this.#replayFile(join(this.dir, name), false, commit).catch(unlessGone);
      }
    } while (this.#replayAgain);
  }

  async #replayFile(path: string, own: boolean, commit: (outcome: SpooledOutcome) => Promise<Verdict>): Promise<void> {
    const text = await readFile(path, 'utf8');
    let replayed = 0;
    for (const line of text.split('\n')) {
      if (line === '') continue;
      const outcome = parseLine(line);
      if (outcome === undefined) {
        // Only a write that failed leaves half a line, and that was never acknowledged.
        this.logger.error({ path, after: replayed }, 'spool: a line was never completely written; its call is charged in full by the sweeper');
        continue;
      }
      await this.#commitOrPark(path, line, outcome, commit);
      replayed += 1;
    }
    await this.#delete(path, own, Buffer.byteLength(text));
    this.logger.info({ path, outcomes: replayed }, 'spool: replayed');
  }

  async #commitOrPark(path: string, line: string, outcome: SpooledOutcome, commit: (outcome: SpooledOutcome) => Promise<Verdict>): Promise<void> {
    try {
      await commit(outcome);
    } catch (error) {
      if (!(error instanceof GatewayError) || error.code !== 'internal_error') throw error;
      // The database refuses this one for good; it must not keep the others from being replayed.
      await appendFile(join(this.dir, 'refused.jsonl'), `${line}\n`, { mode: 0o600, flush: true });
      this.logger.error({ err: error, path }, 'spool: the database refused an outcome; it is kept in refused.jsonl');
    }
  }

  /** Deletes a file, unless outcomes were added while it was being replayed. */
  #delete(path: string, own: boolean, bytesReplayed: number): Promise<void> {
    const done = this.#writing.then(async () => {
      if ((await stat(path)).size > bytesReplayed) return;
      if (own) {
        await this.#file?.close();
        this.#file = undefined;
      }
      await rm(path, { force: true }); // another replica may have replayed a dead one's file at the same time
    });
    this.#writing = done.catch(() => undefined); // reported to the replay
    return done;
  }
}

/** Another replica was replaying the same dead one's file, and was faster. */
function unlessGone(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}

/** A disk that is nearly full takes what fits, and says so only in the count. */
async function writeAll(file: FileHandle, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await file.write(bytes.subarray(at))).bytesWritten;
}

function parseLine(line: string): SpooledOutcome | undefined {
  try {
    return JSON.parse(line) as SpooledOutcome;
  } catch {
    return undefined; // reported by the caller
  }
}
