import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { Logger } from 'pino';
import { OpenedSecrets, type NamedValue } from './opened-secrets.ts';
import { SecretUnavailable } from './secret-provider.ts';

// With timers as they are: the first wait is a quarter to half a second.

const KEY: NamedValue = { name: 'XAI_API_KEY', value: 'enc:v1:vault:a2V5' };
const OTHER: NamedValue = { name: 'deployment/a/api_key', value: 'enc:v1:vault:b3RoZXI' };

let away: boolean;
let refused: Set<string>;
let asked: string[];
let log: string[];
let opened: OpenedSecrets;
beforeEach(() => {
  [away, refused, asked, log] = [false, new Set(), [], []];
  const write = (level: string) => (text: string) => void log.push(`${level} ${text}`);
  opened = new OpenedSecrets({
    open: async (name) => {
      asked.push(name);
      if (away) throw new SecretUnavailable(`${name}: Vault is sealed`, false);
      if (refused.has(name)) throw new Error(`${name}: cannot be opened`);
      return `opened ${name}`;
    },
  }, [KEY], () => 0, { info: write('info'), warn: write('warn'), error: write('error') } as unknown as Logger);
});
afterEach(() => opened.close());
const until = async (condition: () => boolean): Promise<void> => {
  for (let n = 0; n < 300 && !condition(); n++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(condition()).toBe(true);
};

describe('OpenedSecrets', () => {
  it('opens once what is needed, and takes plain values as they are', async () => {
    await opened.need([OTHER, { name: 'plain', value: 'text' }]);
    await opened.need([OTHER]);
    expect(opened.read(KEY.name, KEY.value)).toBe('opened XAI_API_KEY');
    expect(opened.read(OTHER.name, OTHER.value)).toBe('opened deployment/a/api_key');
    expect(opened.read('plain', 'text')).toBe('text');
    expect(opened.read(OTHER.name, KEY.value)).toBeUndefined(); // a value under another name is another secret
    expect(asked).toEqual(['XAI_API_KEY', 'deployment/a/api_key']);
  });

  it('goes on trying what cannot be opened yet, one of them as long as none can, then tells once', async () => {
    away = true;
    let told = 0;
    opened.onOpen(() => {
      told += 1;
    });
    await opened.need([OTHER]);
    expect([opened.read(KEY.name, KEY.value), opened.read(OTHER.name, OTHER.value)]).toEqual([undefined, undefined]);
    await until(() => asked.length === 4);
    expect(asked.slice(2)).toEqual(['XAI_API_KEY', 'XAI_API_KEY']);
    away = false;
    await until(() => told === 1);
    expect([opened.read(KEY.name, KEY.value), opened.read(OTHER.name, OTHER.value)]).toEqual(['opened XAI_API_KEY', 'opened deployment/a/api_key']);
    expect(log.at(-1)).toBe('info secrets: nothing is waited for any more');
    const count = asked.length;
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(asked).toHaveLength(count);
  });

  it('forgets what is not needed any more, but not what always is', async () => {
    away = true;
    await opened.need([OTHER]);
    away = false;
    await opened.need([]);
    await until(() => opened.current(KEY.name, KEY.value) !== undefined);
    expect(asked.filter((name) => name === OTHER.name)).toHaveLength(1);
    expect(opened.current(OTHER.name, OTHER.value)).toBeUndefined();
  });

  it('throws for what will never open, to who reads it; others go on', async () => {
    refused.add(OTHER.name);
    await opened.need([OTHER]);
    expect(() => opened.read(OTHER.name, OTHER.value)).toThrow('deployment/a/api_key: cannot be opened');
    expect(opened.current(OTHER.name, OTHER.value)).toBeUndefined();
    expect(opened.read(KEY.name, KEY.value)).toBe('opened XAI_API_KEY');
  });

  it('says in the log what is refused after it was waited for, and does not ask again', async () => {
    away = true;
    await opened.need([]);
    refused.add(KEY.name);
    away = false;
    await until(() => log.length > 1);
    expect(log).toEqual(['warn secrets: XAI_API_KEY: Vault is sealed; it is tried again until it opens', 'error secrets: XAI_API_KEY: cannot be opened', 'info secrets: nothing is waited for any more']);
  });

  it('does nothing any more once it is closed', async () => {
    away = true;
    await opened.need([OTHER]);
    opened.close();
    const count = asked.length;
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(asked).toHaveLength(count);
  });
});
