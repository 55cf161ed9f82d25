import { appendFile, mkdir, open, readdir, readFile, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Entries, Verdict } from './operation.ts';

/** What of an operation is kept. */
export interface SpooledOutcome {
  entries: Entries;
  otherwise?: { verdict: Verdict; entries: Entries };
}

const NAME = /^outcomes-(\d+)-([0-9a-f-]{36})\.jsonl$/;

/**
 * Outcomes that could not reach the database, one JSON line each in a file of this process's own, forced to disk before `append` resolves.
 * Replaying is harmless however often: a settlement claims its hold once. A file is deleted when all of it has been replayed.
 */
export class Spool {
  readonly #path: string;
  #file: FileHandle | undefined;
  #writing: Promise<void> = Promise.resolve();
  #replaying: Promise<void> | undefined;

  constructor(
    private readonly dir: string,
    private readonly replicaId: string,
    private readonly logger: Logger,
  ) {
    this.#path = join(dir, `outcomes-${process.pid}-${replicaId}.jsonl`);
  }

  async open(): Promise<void> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 });
  }

  /** Resolves once the outcome is on disk. Bounded by the calls in flight, since nothing is admitted while the database is gone. */
  append(outcome: SpooledOutcome): Promise<void> {
    const done = this.#writing.then(async () => {
      this.#file ??= await open(this.#path, 'a', 0o600);
      await this.#file.write(`${JSON.stringify(outcome)}\n`);
      await this.#file.datasync();
    });
    this.#writing = done.catch(() => undefined); // the caller hears of it; the next append tries afresh
    return done;
  }

  /**
   * Commits what this process and dead ones left behind.
   *
   * @throws what `commit` throws; what was not replayed stays
   */
  replay(commit: (outcome: SpooledOutcome) => Promise<Verdict>): Promise<void> {
    this.#replaying ??= this.#replayAll(commit).finally(() => {
      this.#replaying = undefined;
    });
    return this.#replaying;
  }

  async #replayAll(commit: (outcome: SpooledOutcome) => Promise<Verdict>): Promise<void> {
    for (const name of await readdir(this.dir)) {
      const [, pid, replicaId] = NAME.exec(name) ?? [];
      if (replicaId === undefined) continue;
      const own = replicaId === this.replicaId;
      if (!own && isAlive(Number(pid))) continue;
      await this.#replayFile(join(this.dir, name), own, commit);
    }
  }

  async #replayFile(path: string, own: boolean, commit: (outcome: SpooledOutcome) => Promise<Verdict>): Promise<void> {
    const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => line !== '');
    let replayed = 0;
    for (const line of lines) {
      const outcome = parseLine(line);
      if (outcome === undefined) {
        // Only the end of a file can be torn, and what was torn was never acknowledged.
        this.logger.error({ path, line: replayed + 1 }, 'spool: unreadable line, kept aside in the log');
        continue;
      }
      try {
        await commit(outcome);
      } catch (error) {
        if (!(error instanceof GatewayError) || error.code !== 'internal_error') throw error;
        // The database refuses this one for good; it must not keep the others from being replayed.
        await appendFile(join(this.dir, 'refused.jsonl'), `${line}\n`, { mode: 0o600, flush: true });
        this.logger.error({ err: error, path }, 'spool: the database refused an outcome; it is kept in refused.jsonl');
      }
      replayed += 1;
    }
    if (!own) await rm(path);
    else await this.#deleteOwn(lines.length);
    this.logger.info({ path, outcomes: replayed }, 'spool: replayed');
  }

  /** Deletes our own file, unless outcomes were added while it was being replayed. */
  #deleteOwn(linesReplayed: number): Promise<void> {
    const done = this.#writing.then(async () => {
      const lines = (await readFile(this.#path, 'utf8')).split('\n').length - 1;
      if (lines > linesReplayed) return;
      await this.#file?.close();
      this.#file = undefined;
      await rm(this.#path);
    });
    this.#writing = done.catch(() => undefined); // reported to the replay
    return done;
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#file?.close();
    this.#file = undefined;
  }
}

function parseLine(line: string): SpooledOutcome | undefined {
  try {
    return JSON.parse(line) as SpooledOutcome;
  } catch {
    return undefined;
  }
}

/** A process id of ours with another replica id belongs to an earlier life (in a container it is always 1). */
function isAlive(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
