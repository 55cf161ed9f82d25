import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/shared/clock.ts';
import { RootGone, type EpochRoots } from '../../src/vault/epoch-roots.ts';
import { FileRoots } from '../../src/vault/file-roots.ts';
import { CannotOpen } from '../../src/vault/record-cipher.ts';
import { RootKeepers } from '../../src/vault/root-keepers.ts';
import { RootPlace, type MarkedPlace } from '../../src/vault/root-place.ts';
import { VaultRequests } from '../../src/vault/vault-requests.ts';
import { VaultRoots } from '../../src/vault/vault-roots.ts';
import { FakeTransit, TOKEN } from './fake-transit.ts';

let folder: string;
let transit: FakeTransit;
let requests: VaultRequests;
const keepers = {} as Record<'files' | 'Vault', EpochRoots & MarkedPlace>;
/** What the database remembers. */
const secrets = new Map<string, Buffer>();
const place = (keeper: 'file' | 'vault'): RootPlace => new RootPlace({
  query: async (sql: string, [name, value]: [string, Buffer]) => {
    if (sql.startsWith('INSERT') && !secrets.has(name)) secrets.set(name, value);
    return { rows: secrets.has(name) ? [{ value: secrets.get(name) }] : [] };
  },
} as never, keeper);

beforeAll(async () => {
  folder = join(await mkdtemp(join(tmpdir(), 'vault-roots-')), 'keys');
  transit = await FakeTransit.start();
  requests = vaultRequests(TOKEN);
  keepers.files = new FileRoots(folder, place('file'));
  keepers.Vault = new VaultRoots((...args) => requests.ask(...args), place('vault'));
});
afterAll(async () => {
  await requests.close();
  await transit.close();
  await rm(join(folder, '..'), { recursive: true });
});

function vaultRequests(token: string, url = transit.url): VaultRequests {
  const settings = { url, transitMount: 'transit', transitKey: 'novix', namespace: undefined, caFile: undefined, login: { type: 'token' as const, token } };
  return new VaultRequests(settings, { clock: systemClock, random: Math.random, onToken: () => {}, onNotice: () => {} });
}

const newEpoch = (): { id: string; tenantId: string } => ({ id: randomUUID(), tenantId: 'acme' });
const SECRET = randomBytes(96);

describe.each(['files', 'Vault'] as const)('roots kept by %s', (kind) => {
  it('open what they sealed, and nothing of it shows', async () => {
    const epoch = newEpoch();
    const sealed = await keepers[kind].seal(epoch, SECRET);
    expect(sealed.includes(SECRET.subarray(0, 16))).toBe(false);
    expect((await keepers[kind].open(epoch, sealed)).equals(SECRET)).toBe(true);
  });

  it('refuse what was changed, and what was sealed for another tenant or epoch', async () => {
    const epoch = newEpoch();
    const other = newEpoch();
    const sealed = await keepers[kind].seal(epoch, SECRET);
    await keepers[kind].seal(other, SECRET);
    const flipped = kind === 'files' ? Buffer.from(sealed) : Buffer.from(sealed.toString().replace(/^(vault:v1:....)(.)/, (_, head: string, one: string) => head + (one === 'A' ? 'B' : 'A')));
    if (kind === 'files') flipped[20]! ^= 1;
    await expect(keepers[kind].open(epoch, flipped)).rejects.toThrow(CannotOpen);
    await expect(keepers[kind].open({ ...epoch, tenantId: 'globex' }, sealed)).rejects.toThrow(CannotOpen);
    await expect(keepers[kind].open(other, sealed)).rejects.toThrow(CannotOpen);
  });

  it('once destroyed open nothing any more, and can be destroyed again', async () => {
    const epoch = newEpoch();
    const sealed = await keepers[kind].seal(epoch, SECRET);
    const kept = newEpoch();
    const sealedToo = await keepers[kind].seal(kept, SECRET);
    await keepers[kind].destroy(epoch.id);
    await expect(keepers[kind].open(epoch, sealed)).rejects.toThrow(RootGone);
    await keepers[kind].destroy(epoch.id);
    expect((await keepers[kind].open(kept, sealedToo)).equals(SECRET)).toBe(true);
  });
});

describe('the place of roots', () => {
  it('is known by its mark: in another folder nothing passes for destroyed, nor is anything sealed', async () => {
    const epoch = newEpoch();
    const sealed = await keepers.files.seal(epoch, SECRET);
    const elsewhere = new FileRoots(join(folder, 'elsewhere'), place('file'));
    for (const attempt of [() => elsewhere.open(epoch, sealed), () => elsewhere.destroy(epoch.id), () => elsewhere.seal(newEpoch(), SECRET)]) await expect(attempt()).rejects.toThrow('NOVIX_PAYLOAD_KEY_DIR: this is not where');
    expect((await keepers.files.open(epoch, sealed)).equals(SECRET)).toBe(true);
  });

  it('is known by its mark: of another Vault nothing passes for destroyed either', async () => {
    const epoch = newEpoch();
    const sealed = await keepers.Vault.seal(epoch, SECRET);
    const other = await FakeTransit.start();
    const away = vaultRequests(TOKEN, other.url);
    const elsewhere = new VaultRoots((...args) => away.ask(...args), place('vault'));
    try {
      for (const attempt of [() => elsewhere.open(epoch, sealed), () => elsewhere.destroy(epoch.id)]) await expect(attempt()).rejects.toThrow('VAULT_ADDR, VAULT_NAMESPACE or VAULT_TRANSIT_MOUNT: this is not where');
      expect((await keepers.Vault.open(epoch, sealed)).equals(SECRET)).toBe(true);
    } finally {
      await away.close();
      await other.close();
    }
  });

  it('is the same for two replicas that come first at once', async () => {
    secrets.clear();
    const [one, two] = [new FileRoots(folder, place('file')), new FileRoots(folder, place('file'))];
    const epochs = [newEpoch(), newEpoch()];
    const [sealedByOne, sealedByTwo] = await Promise.all([one.seal(epochs[0]!, SECRET), two.seal(epochs[1]!, SECRET)]);
    expect((await two.open(epochs[0]!, sealedByOne)).equals(SECRET)).toBe(true);
    expect((await one.open(epochs[1]!, sealedByTwo)).equals(SECRET)).toBe(true);
  });
});

describe('FileRoots', () => {
  it('keeps 32 bytes in a file that only its owner reads, and no drafts', async () => {
    const epoch = newEpoch();
    await keepers.files.seal(epoch, SECRET);
    const path = join(folder, `${epoch.id}.root`);
    expect((await readFile(path)).length).toBe(32);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
    expect((await readdir(folder)).filter((name) => !/^[0-9a-f-]{36}\.(?:root|place)$/.test(name))).toEqual([]);
  });

  it('never makes an epoch’s root anew, which would close what the first one sealed', async () => {
    const epoch = newEpoch();
    const sealed = await keepers.files.seal(epoch, SECRET);
    await expect(keepers.files.seal(epoch, SECRET)).rejects.toThrow('EEXIST');
    expect((await keepers.files.open(epoch, sealed)).equals(SECRET)).toBe(true);
  });

  it('finishes a destruction that a crash has cut off', async () => {
    const epoch = newEpoch();
    const sealed = await keepers.files.seal(epoch, SECRET);
    const path = join(folder, `${epoch.id}.root`);
    await rename(path, `${path}.doomed`);
    await expect(keepers.files.open(epoch, sealed)).rejects.toThrow(RootGone);
    await keepers.files.destroy(epoch.id);
    expect((await readdir(folder)).filter((name) => name.startsWith(epoch.id))).toEqual([]);
  });

  it('tells who reads while it destroys that the root is gone, and never that the text is damaged', async () => {
    for (let round = 0; round < 30; round += 1) {
      const epoch = newEpoch();
      const sealed = await keepers.files.seal(epoch, SECRET);
      const reads = Array.from({ length: 20 }, async (_, turn) => {
        for (let wait = 0; wait < turn; wait += 1) await new Promise((resolve) => setImmediate(resolve));
        return keepers.files.open(epoch, sealed).then(() => 'open', (error: Error) => error.name);
      });
      await Promise.all([keepers.files.destroy(epoch.id), ...reads]);
      const seen = new Set(await Promise.all(reads));
      expect([...seen].filter((one) => one !== 'open' && one !== 'RootGone')).toEqual([]);
    }
  });

  it('takes nothing but a UUID into a path', async () => {
    await expect(keepers.files.destroy('../../etc/passwd')).rejects.toThrow('UUID');
  });
});

describe('VaultRoots', () => {
  it('does not take a Vault that is away, a mount that is missing, or a token that may not, for a destroyed key', async () => {
    const epoch = newEpoch();
    const sealed = await keepers.Vault.seal(epoch, SECRET);
    const elsewhere = new VaultRoots((...args) => requests.ask(...args), place('vault'), 'transit2');
    await expect(elsewhere.destroy(epoch.id)).rejects.toThrow('VAULT_TRANSIT_MOUNT');
    const stranger = vaultRequests('hvs.of-nobody');
    await expect(new VaultRoots((...args) => stranger.ask(...args), place('vault')).destroy(epoch.id)).rejects.toThrow('policy');
    await stranger.close();
    transit.down = true;
    await expect(keepers.Vault.destroy(epoch.id)).rejects.toThrow('503');
    await expect(keepers.Vault.open(epoch, sealed)).rejects.not.toThrow(RootGone);
    transit.down = false;
    expect((await keepers.Vault.open(epoch, sealed)).equals(SECRET)).toBe(true);
  });

  it('has one key an epoch, which can be deleted only once that was allowed', async () => {
    const epoch = newEpoch();
    await keepers.Vault.seal(epoch, SECRET);
    expect(transit.keys.has(`novix-payload-${epoch.id}`)).toBe(true);
    transit.calls.length = 0;
    await keepers.Vault.destroy(epoch.id);
    expect(transit.calls).toEqual(['GET keys', 'POST keys/config', 'DELETE keys', 'GET keys']);
    expect(transit.keys.has(`novix-payload-${epoch.id}`)).toBe(false);
  });
});

describe('RootKeepers', () => {
  it('does not let an epoch whose keeper is not set up pass for destroyed', () => {
    expect(() => new RootKeepers({ file: keepers.files }, 'file').of('vault')).toThrow('VAULT_ADDR');
  });
});
