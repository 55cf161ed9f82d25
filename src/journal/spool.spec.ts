import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { GatewayError } from '../shared/gateway-error.ts';
import { Spool, type SpooledOutcome } from './spool.ts';

const OWN = '01890000-0000-7000-8000-000000000001';
const DEAD = '01890000-0000-7000-8000-00000000000d';
const ALIVE = '01890000-0000-7000-8000-00000000000a';
const outcome = (id: string): SpooledOutcome => ({ entries: { audit_append: `{"id":"${id}"}\n{"text":"ü\\n🙂"}` }, otherwise: { verdict: 3, entries: { audit_append: `{"id":"${id}-late"}` } } });
const idOf = ({ entries }: SpooledOutcome): string => (JSON.parse(entries.audit_append!.split('\n')[0]!) as { id: string }).id;
const logger = pino({ level: 'silent' });

let dir: string;
let spool: Spool;
const path = (replicaId: string): string => join(dir, `outcomes-${replicaId}.jsonl`);
const files = async (): Promise<string[]> => (await fs.readdir(dir)).sort();
const leave = (replicaId: string, text: string): Promise<void> => fs.writeFile(path(replicaId), text);
const lines = (...ids: string[]): string => ids.map((id) => `${JSON.stringify(outcome(id))}\n`).join('');

/** Lets the next write to a file do only its first bytes, as a full or broken disk does: with an error, or without one. */
async function shortenNextWrite(bytesWritten: number, error?: Error): Promise<void> {
  const handle = await fs.open(join(dir, 'probe'), 'w');
  await handle.close();
  await fs.rm(join(dir, 'probe'));
  const write = jest.spyOn(Object.getPrototypeOf(handle) as { write: (buffer: Buffer, offset: number, length: number) => Promise<{ bytesWritten: number; buffer: Buffer }> }, 'write');
  write.mockImplementationOnce(async function (this: fs.FileHandle, buffer: Buffer, offset = 0) {
    write.mockRestore();
    const done = await this.write(buffer, offset, bytesWritten);
    if (error) throw error;
    return done;
  });
}

/** Replays, and returns the ids of what was committed, in order. */
async function replayed(by: (one: SpooledOutcome) => Promise<void> | void = () => {}): Promise<string[]> {
  const seen: string[] = [];
  await spool.replay(async (one) => {
    await by(one);
    seen.push(idOf(one));
    return 0;
  });
  return seen;
}

beforeEach(async () => {
  dir = await fs.mkdtemp(join(tmpdir(), 'novix-spool-'));
  spool = new Spool(dir, OWN, async (replicaId) => replicaId === DEAD, logger);
  await spool.open();
});
afterEach(async () => {
  jest.restoreAllMocks();
  await spool.close();
  await fs.rm(dir, { recursive: true, force: true });
});

describe('Spool', () => {
  it('replays what it was given, whole and in order, and then holds nothing', async () => {
    for (const id of ['1', '2', '3']) await spool.append(outcome(id));
    const seen: SpooledOutcome[] = [];
    await spool.replay(async (one) => {
      seen.push(one);
      return 0;
    });
    expect(seen).toEqual(['1', '2', '3'].map(outcome));
    expect(await files()).toEqual([]);
    expect(await replayed()).toEqual([]);
  });

  it('takes outcomes that come at once, each on a line of its own', async () => {
    const ids = Array.from({ length: 50 }, (_, at) => String(at));
    await Promise.all(ids.map((id) => spool.append(outcome(id))));
    expect(await replayed()).toEqual(ids);
  });

  it('has an outcome on disk when append resolves, readable by nobody else', async () => {
    await spool.append(outcome('1'));
    expect(await fs.readFile(path(OWN), 'utf8')).toBe(lines('1'));
    expect((await fs.stat(path(OWN))).mode & 0o077).toBe(0);
  });

  it('goes on after a replay', async () => {
    await spool.append(outcome('1'));
    await replayed();
    await spool.append(outcome('2'));
    expect(await replayed()).toEqual(['2']);
  });

  it('keeps what was appended while it replayed', async () => {
    await spool.append(outcome('1'));
    expect(await replayed(() => spool.append(outcome('2')))).toContain('1');
    expect(await fs.readFile(path(OWN), 'utf8').catch(() => '')).toContain('"2\\"');
    expect(await replayed()).toContain('2');
    expect(await files()).toEqual([]);
  });

  it('looks once more when it is asked while it replays', async () => {
    await spool.append(outcome('1'));
    const seen: string[] = [];
    const commit = async (one: SpooledOutcome): Promise<number> => {
      seen.push(idOf(one));
      if (seen.length === 1) {
        await spool.append(outcome('2'));
        void spool.replay(commit);
      }
      return 0;
    };
    await spool.replay(commit);
    expect(seen).toContain('2');
    expect(await files()).toEqual([]);
  });

  it('keeps everything when the database fails in the middle', async () => {
    for (const id of ['1', '2', '3']) await spool.append(outcome(id));
    const gone = new GatewayError('audit_unavailable', { publicMessage: 'gone' });
    await expect(replayed((one) => { if (idOf(one) === '2') throw gone; })).rejects.toBe(gone);
    expect(await replayed()).toEqual(['1', '2', '3']);
  });

  it('parks an outcome that the database refuses for good, and replays the others', async () => {
    for (const id of ['1', '2', '3']) await spool.append(outcome(id));
    expect(await replayed((one) => { if (idOf(one) === '2') throw new GatewayError('internal_error', { publicMessage: 'poison' }); })).toEqual(['1', '3']);
    expect(await files()).toEqual(['refused.jsonl']);
    expect(await fs.readFile(join(dir, 'refused.jsonl'), 'utf8')).toBe(lines('2'));
  });
});

describe('Spool after a write that failed', () => {
  it('does not lose the next outcome to half a line', async () => {
    await spool.append(outcome('1'));
    await shortenNextWrite(20, new Error('ENOSPC'));
    await expect(spool.append(outcome('2'))).rejects.toThrow('ENOSPC');
    await spool.append(outcome('3'));
    expect(await replayed()).toEqual(['1', '3']);
    expect(await files()).toEqual([]);
  });

  it('acknowledges no outcome of which only the first bytes were written', async () => {
    await shortenNextWrite(20); // as the system does when the disk becomes full: no error yet
    const acknowledged = await spool.append(outcome('1')).then(() => true, () => false);
    expect((await replayed()).includes('1')).toBe(acknowledged);
  });

  it('tells the caller of the one that failed, and takes the next', async () => {
    await shortenNextWrite(0, new Error('EIO'));
    const [first, second] = [spool.append(outcome('1')), spool.append(outcome('2'))];
    await expect(first).rejects.toThrow('EIO');
    await expect(second).resolves.toBeUndefined();
    expect(await replayed()).toEqual(['2']);
  });
});

describe('Spool of another replica', () => {
  it('adopts the file of a dead one and removes it', async () => {
    await leave(DEAD, lines('1', '2'));
    expect(await replayed()).toEqual(['1', '2']);
    expect(await files()).toEqual([]);
  });

  it('leaves the file of a live one alone', async () => {
    await leave(ALIVE, lines('1'));
    expect(await replayed()).toEqual([]);
    expect(await files()).toEqual([`outcomes-${ALIVE}.jsonl`]);
  });

  it('skips a torn last line, which was never acknowledged', async () => {
    await leave(DEAD, `${lines('1', '2')}${lines('3').slice(0, -10)}`);
    expect(await replayed()).toEqual(['1', '2']);
    expect(await files()).toEqual([]);
  });

  it('skips a line torn inside a character', async () => {
    await fs.writeFile(path(DEAD), Buffer.concat([Buffer.from(lines('1')), Buffer.from('{"x":"🙂').subarray(0, -2)]));
    expect(await replayed()).toEqual(['1']);
    expect(await files()).toEqual([]);
  });

  it('keeps the file of a dead one until all of it is committed', async () => {
    await leave(DEAD, lines('1', '2'));
    await expect(replayed((one) => { if (idOf(one) === '2') throw new Error('gone'); })).rejects.toThrow('gone');
    expect(await fs.readFile(path(DEAD), 'utf8')).toBe(lines('1', '2'));
  });

  it('does not mind that another replica replays the same file at the same time and is done first', async () => {
    await leave(DEAD, lines('1'));
    await spool.append(outcome('own'));
    expect((await replayed(() => fs.rm(path(DEAD), { force: true }))).sort()).toContain('own');
    expect(await files()).toEqual([]);
  });

  it.each(['refused.jsonl', 'outcomes-1.jsonl', `outcomes-${DEAD}.jsonl.bak`, `../outcomes-${DEAD}.txt`.slice(3), 'README'])('leaves %s alone, which is none of its files', async (name) => {
    await fs.writeFile(join(dir, name), lines('1'));
    expect(await replayed()).toEqual([]);
    expect(await files()).toEqual([name]);
  });
});
