import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { mkdtemp, open, readdir, readFile, rm, stat, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Spool, type SpooledOutcome } from '../../src/journal/spool.ts';
import { GatewayError } from '../../src/shared/gateway-error.ts';

// Outcomes on a real disk. A disk that is full is the one thing put on.

const dead = new Set<string>();
let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'novix-test-spool-'));
});
afterEach(async () => {
  jest.restoreAllMocks();
  dead.clear();
  await rm(dir, { recursive: true, force: true });
});

async function openSpool(replicaId = randomUUID()): Promise<Spool> {
  const spool = new Spool(dir, replicaId, async (id) => dead.has(id), pino({ level: 'silent' }));
  await spool.open();
  return spool;
}

function outcome(name: string): SpooledOutcome {
  return { entries: { audit_append: `{"id":"${name}","b":{"text":"line\\nbreak é"}}` } };
}

/** Replays into a list, as a database that takes everything would. */
async function replayed(spool: Spool): Promise<SpooledOutcome[]> {
  const taken: SpooledOutcome[] = [];
  await spool.replay(async (one) => {
    taken.push(one);
    return 0;
  });
  return taken;
}

/** Makes the next write to a file behave differently. */
async function onNextWrite(behave: (write: (text: string) => Promise<unknown>, text: string) => Promise<unknown>): Promise<void> {
  const probe = await open(join(dir, 'probe'), 'w');
  const prototype = Object.getPrototypeOf(probe) as FileHandle;
  await probe.close();
  await rm(join(dir, 'probe'));
  const { write } = prototype;
  jest.spyOn(prototype, 'write').mockImplementationOnce(function (this: FileHandle, text: unknown) {
    return behave((part) => write.call(this, part), String(text));
  } as never);
}

describe('the spool', () => {
  it('gives back what was put into it, in order, and is empty then', async () => {
    const spool = await openSpool();
    const outcomes = Array.from({ length: 50 }, (_, index) => outcome(String(index)));
    await Promise.all(outcomes.map((one) => spool.append(one)));
    expect(await replayed(spool)).toEqual(outcomes);
    expect(await readdir(dir)).toEqual([]);
    expect(await replayed(spool)).toEqual([]);
    await spool.append(outcome('again'));
    expect(await replayed(spool)).toEqual([outcome('again')]);
  });

  it('has an outcome on disk when it says so, readable by its owner alone', async () => {
    const spool = await openSpool();
    await spool.append(outcome('kept'));
    const [name] = await readdir(dir);
    expect(JSON.parse(await readFile(join(dir, name!), 'utf8'))).toEqual(outcome('kept'));
    expect((await stat(join(dir, name!))).mode & 0o777).toBe(0o600);
    await spool.close();
  });

  it('replays what was added while it was replaying too', async () => {
    const spool = await openSpool();
    await spool.append(outcome('first'));
    const taken: string[] = [];
    let more: Promise<void> | undefined;
    await spool.replay(async (one) => {
      taken.push(one.entries.audit_append!);
      if (more === undefined) {
        await spool.append(outcome('second'));
        more = spool.replay(async () => 0); // as the journal asks when an outcome has gone to the spool
      }
      return 0;
    });
    await more;
    expect(taken).toContain(outcome('second').entries.audit_append);
    expect(await readdir(dir)).toEqual([]);
  });

  it('keeps what could not be replayed, and everything after it', async () => {
    const spool = await openSpool();
    for (const name of ['a', 'b', 'c']) await spool.append(outcome(name));
    const down = new GatewayError('audit_unavailable', { publicMessage: 'gone' });
    const taken: SpooledOutcome[] = [];
    await expect(spool.replay(async (one) => {
      if (taken.length === 1) throw down;
      taken.push(one);
      return 0;
    })).rejects.toMatchObject({ code: 'audit_unavailable' });
    expect(await replayed(spool)).toEqual(expect.arrayContaining([outcome('b'), outcome('c')]));
    expect(await readdir(dir)).toEqual([]);
  });

  it('puts aside what the database refuses for good, and goes on with the others', async () => {
    const spool = await openSpool();
    for (const name of ['a', 'bad', 'c']) await spool.append(outcome(name));
    const taken: SpooledOutcome[] = [];
    await spool.replay(async (one) => {
      if (JSON.stringify(one) === JSON.stringify(outcome('bad'))) throw new GatewayError('internal_error', { publicMessage: 'refused' });
      taken.push(one);
      return 0;
    });
    expect(taken).toEqual([outcome('a'), outcome('c')]);
    expect(await readdir(dir)).toEqual(['refused.jsonl']);
    expect(JSON.parse(await readFile(join(dir, 'refused.jsonl'), 'utf8'))).toEqual(outcome('bad'));
  });

  it('of a dead process is adopted, that of a living one is left alone', async () => {
    const [deadId, livingId] = [randomUUID(), randomUUID()];
    const [killed, living] = [await openSpool(deadId), await openSpool(livingId)];
    await killed.append(outcome('of the dead'));
    await living.append(outcome('of the living'));
    await killed.close();
    const spool = await openSpool();
    expect(await replayed(spool)).toEqual([]);
    dead.add(deadId);
    expect(await replayed(spool)).toEqual([outcome('of the dead')]);
    expect(await readdir(dir)).toEqual([expect.stringContaining(livingId)]);
    await living.append(outcome('more of the living'));
    expect(await replayed(living)).toEqual([outcome('of the living'), outcome('more of the living')]);
  });
});

describe('a disk that is full', () => {
  const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });

  it('is told to the caller, and a line half written spoils neither the one before nor the one after', async () => {
    const spool = await openSpool();
    await spool.append(outcome('before'));
    await onNextWrite(async (write, text) => {
      await write(text.slice(0, text.length / 2));
      throw full;
    });
    await expect(spool.append(outcome('half'))).rejects.toMatchObject({ code: 'ENOSPC' });
    await spool.append(outcome('after'));
    expect(await replayed(spool)).toEqual([outcome('before'), outcome('after')]);
    expect(await readdir(dir)).toEqual([]);
  });

  it('is no reason to acknowledge a write that takes only half', async () => {
    const spool = await openSpool();
    await onNextWrite((write, text) => write(text.slice(0, text.length / 2)));
    const acknowledged = await spool.append(outcome('half')).then(() => true, () => false);
    await spool.append(outcome('after'));
    expect(await replayed(spool)).toEqual(acknowledged ? [outcome('half'), outcome('after')] : [outcome('after')]);
  });
});
