import { describe, expect, it } from '@jest/globals';
import { isLoopback } from './shared/loopback.ts';
import { anySandbox, EnvError, parseEnv, sandboxParts, type SandboxParts } from './env.ts';

type Source = Record<string, string | undefined>;
const DATABASE = { DATABASE_URL: 'postgresql://novix:s3cret-pw@db.internal:5432/novix' };
const PROVIDER = { XAI_API_KEY: 'xai-s3cret-key' };
const IDENTITY = { AUTH_ISSUER: 'https://idp.example', AUTH_AUDIENCE: 'novix', AUTH_JWKS_URI: 'https://idp.example/jwks' };
const ALL = { ...DATABASE, ...PROVIDER, ...IDENTITY };
const PRODUCTION = { NODE_ENV: 'production' };

function faultsOf(source: Source): readonly string[] {
  try {
    parseEnv(source);
    return [];
  } catch (error) {
    if (error instanceof EnvError) return error.faults;
    throw error;
  }
}

describe('parseEnv', () => {
  it('makes no signing key of the audit log in production, and keeps leaves longer than any payload', () => {
    expect(parseEnv({ ...ALL, ...PRODUCTION }).audit.signingKeyFile).toBeUndefined();
    expect(parseEnv({ ...ALL, ...PRODUCTION, AUDIT_SIGNING_KEY_FILE: '/keys/audit.pem', AUDIT_RETENTION_DAYS: '400' }).audit).toMatchObject({ signingKeyFile: '/keys/audit.pem', retentionDays: 400 });
    expect(faultsOf({ ...ALL, AUDIT_RETENTION_DAYS: '90' })).toEqual(['AUDIT_RETENTION_DAYS: expected a whole number from 91 to 36500']);
  });

  it('has the defaults of the contract', () => {
    expect(parseEnv(ALL)).toEqual({
      production: false,
      http: { host: '127.0.0.1', port: 8080, managementPort: undefined, bodyLimitBytes: 33_554_432 },
      provider: {
        apiVersion: undefined, apiKey: 'xai-s3cret-key', endpoint: 'https://api.x.ai/v1', clientCertFile: undefined, clientKeyFile: undefined, caFile: undefined, connectTimeoutMs: 3050, idleTimeoutMs: 30_000,
        firstByteTimeoutMs: undefined, totalTimeoutMs: 900_000, retryMax: 3, retryBackoffMs: 500, breakerFailures: 5, breakerRecoveryMs: 300_000,
      },
      egress: { proxyUrl: undefined, noProxy: undefined, allowedOrigins: [] }, alertWebhook: undefined, audit: { signingKeyFile: '.novix/audit-signing.pem', checkpointFile: '.novix/audit-checkpoint', retentionDays: undefined }, keyFile: undefined,
      defaults: { model: 'grok-beta', maxTokensCap: 32_768, temperature: undefined, topP: undefined, frequencyPenalty: undefined, presencePenalty: undefined },
      identity: { issuer: 'https://idp.example', audience: 'novix', jwksUri: 'https://idp.example/jwks', jwksFile: undefined, algorithms: ['ES256', 'PS256', 'RS256', 'EdDSA'] },
      issuers: [], tls: undefined, trustedProxies: [], authFailuresPerMinute: 600, databaseUrl: DATABASE.DATABASE_URL, dataDir: '.novix', configDir: undefined, spoolDir: '.novix/spool', siemDir: '.novix/siem', payloadRoots: { keeper: 'file', folder: '.novix/payload-keys' }, drainDelayMs: 5_000, shutdownGraceMs: 30_000, logLevel: 'info',
    });
  });

  it('loads the seed’s block as it is', () => {
    const env = parseEnv({ ...ALL, AI_PROVIDER: 'xai', XAI_API_VERSION: '2026-10-01', XAI_API_ENDPOINT: 'https://us.api.x.ai/v1/', XAI_MODEL: 'grok-pro', XAI_MAX_TOKENS: '8192', XAI_TEMPERATURE: '0.7', XAI_TOP_P: '0.95', XAI_FREQUENCY_PENALTY: '0', XAI_PRESENCE_PENALTY: '-0.5' });
    expect(env.provider).toMatchObject({ apiVersion: '2026-10-01', endpoint: 'https://us.api.x.ai/v1' });
    expect(env.defaults).toEqual({ model: 'grok-pro', maxTokensCap: 8192, temperature: 0.7, topP: 0.95, frequencyPenalty: 0, presencePenalty: -0.5 });
  });

  it('takes empty and blank settings for unset ones', () => {
    const blank = Object.fromEntries(['PORT', 'XAI_MODEL', 'XAI_API_ENDPOINT', 'XAI_TEMPERATURE', 'HOST', 'AI_PROVIDER', 'TLS_CERT', 'NODE_ENV'].map((name) => [name, '  ']));
    expect(parseEnv({ ...ALL, ...blank })).toEqual(parseEnv(ALL));
    expect(parseEnv(blank)).toEqual(parseEnv({}));
  });

  it('keeps the spool beside the data, unless told otherwise', () => {
    expect(parseEnv({ ...ALL, NOVIX_DATA_DIR: '/var/novix' })).toMatchObject({ dataDir: '/var/novix', spoolDir: '/var/novix/spool' });
    expect(parseEnv({ ...ALL, SPOOL_DIR: '/spool' }).spoolDir).toBe('/spool');
  });

  it.each<[string, string[], string[]]>([
    ['PORT', ['0', '65535'], ['-1', '65536', '80a', '8080.5', '0x50', '1e3']], ['MANAGEMENT_PORT', ['9090'], ['x']], ['BODY_LIMIT_BYTES', ['1024'], ['1023', '32MiB', '2000000000']],
    ['XAI_MAX_TOKENS', ['1'], ['0', '1.5', 'many', '-4']], ['XAI_TEMPERATURE', ['0', '2', '0.25'], ['2.1', '-0.1', 'hot', '.5', 'NaN', 'Infinity']], ['XAI_TOP_P', ['0', '1'], ['1.1']],
    ['XAI_FREQUENCY_PENALTY', ['-2', '2'], ['-2.1', '3']], ['XAI_PRESENCE_PENALTY', ['-2', '2'], ['-3']], ['XAI_CONNECT_TIMEOUT_MS', ['1'], ['0', '3s']], ['XAI_RETRY_MAX', ['0', '10'], ['11', '-1']],
    ['XAI_BREAKER_FAILURES', ['1'], ['0']], ['DRAIN_DELAY_MS', ['0'], ['-1']], ['SHUTDOWN_GRACE_MS', ['0'], ['later']], ['AUTH_FAILURES_PER_MINUTE', ['1'], ['0']],
    ['LOG_LEVEL', ['trace', 'silent'], ['loud', 'INFO']], ['HOST', ['0.0.0.0', '::', 'localhost', '10.1.2.3'], ['gateway.example', '127.0.0.1:8080', '256.0.0.1', '*']],
    ['AI_PROVIDER', ['xai'], ['openai', 'XAI']], ['DATABASE_URL', ['postgres://h/d', 'postgresql://h/d'], ['mysql://h/d', 'h/d']],
    ['XAI_API_ENDPOINT', ['https://us.api.x.ai/v1', 'http://127.0.0.1:9000/v1', 'http://localhost/v1', 'http://[::1]:1/v1'], ['http://api.x.ai/v1', 'api.x.ai', 'ftp://x', 'https://user:pw@api.x.ai/v1', 'http://127.0.0.1.evil.example/v1', 'file:///etc/passwd', 'https://api.x.ai/v1?key=1', 'https://api.x.ai/v1#x']],
    ['AUTH_JWKS_URI', ['http://127.0.0.1:1/jwks'], ['http://idp.example/jwks', 'jwks']], ['AUTH_ALGORITHMS', ['ES256', 'ES256, PS256'], ['none', 'HS256', 'ES256,none', 'RS1', 'es256', 'ES256,', 'HS\n256']],
    ['XAI_API_KEY', ['xai-abc_DEF-1'], ['xai-a\nb', 'xai-é', 'xai a']], ['XAI_API_VERSION', ['2026-10-01'], ['2024\r\nx-evil: 1']],
  ])('%s takes %j and refuses %j, with one line that names it', (name, good, bad) => {
    for (const value of good) expect({ value, faults: faultsOf({ ...ALL, [name]: value }) }).toEqual({ value, faults: [] });
    for (const value of bad) {
      const faults = faultsOf({ ...ALL, [name]: value });
      expect({ value, faults }).toEqual({ value, faults: [expect.stringMatching(new RegExp(`^${name}: [^\\n]+$`))] });
    }
  });

  it('has one line for each fault, all at once', () => {
    const source = { ...PRODUCTION, PORT: 'x', LOG_LEVEL: 'loud', XAI_TOP_P: '7', XAI_MODLE: 'grok', AUTH_ISSUER: 'https://idp.example' };
    const faults = faultsOf(source);
    for (const name of ['PORT', 'LOG_LEVEL', 'XAI_TOP_P', 'XAI_MODLE', 'AUTH_AUDIENCE', 'AUTH_JWKS_URI', 'DATABASE_URL', 'XAI_API_KEY']) expect(faults.filter((fault) => fault.startsWith(name))).toHaveLength(1);
    expect(faults).toHaveLength(8);
    expect(new EnvError(faults).message.split('\n')).toHaveLength(faults.length);
  });

  it.each([
    ['XAI_API_KYE', 'XAI_API_KEY'], ['XAI_MODLE', 'XAI_MODEL'], ['XAI_MAX_TOKEN', 'XAI_MAX_TOKENS'], ['AUTH_ISSUERS', 'AUTH_ISSUER'], ['AUTH_JWKS_URL', 'AUTH_JWKS_URI'], ['TLS_CERTS', 'TLS_CERT'], ['NOVIX_DATADIR', 'NOVIX_DATA_DIR'], ['AUDIT_SIGNING_KEYFILE', 'AUDIT_SIGNING_KEY_FILE'],
  ])('refuses the unknown name %s and offers %s', (name, nearest) => {
    expect(faultsOf({ ...ALL, [name]: 'x' })).toEqual([`${name}: unknown setting; did you mean ${nearest}?`]);
  });

  const VAULT = { VAULT_ADDR: 'https://vault.internal:8200/', VAULT_TRANSIT_KEY: 'novix', VAULT_TOKEN: 'hvs.s3cret' };

  it('takes a Vault with one way to log in', () => {
    expect(parseEnv(ALL).vault).toBeUndefined();
    expect(parseEnv({ ...ALL, ...VAULT, XAI_API_KEY: 'enc:v1:vault:abc' }).vault).toEqual({ url: 'https://vault.internal:8200', transitMount: 'transit', transitKey: 'novix', namespace: undefined, caFile: undefined, login: { type: 'token', token: 'hvs.s3cret' } });
    expect(parseEnv({ ...ALL, ...VAULT, VAULT_TOKEN: '', VAULT_ROLE_ID: 'r', VAULT_SECRET_ID: 's', VAULT_TRANSIT_MOUNT: 'team/transit', VAULT_NAMESPACE: 'admin/novix', VAULT_CACERT: 'ca.pem' }).vault)
      .toMatchObject({ transitMount: 'team/transit', namespace: 'admin/novix', caFile: 'ca.pem', login: { type: 'approle', roleId: 'r', secretId: 's' } });
    expect(parseEnv({ ...ALL, ...VAULT, VAULT_TOKEN: '', VAULT_K8S_ROLE: 'novix' }).vault?.login).toEqual({ type: 'kubernetes', role: 'novix', jwtFile: '/var/run/secrets/kubernetes.io/serviceaccount/token' });
  });

  it.each<[string, Source, RegExp]>([
    ['plain http beyond loopback', { VAULT_ADDR: 'http://vault.internal:8200' }, /^VAULT_ADDR: expected https/], ['credentials in the URL', { VAULT_ADDR: 'https://u:s3cret@vault' }, /^VAULT_ADDR: credentials/], ['a query', { VAULT_ADDR: 'https://vault/?a=s3cret' }, /^VAULT_ADDR: /],
    ['no key', { VAULT_TRANSIT_KEY: '' }, /^VAULT_TRANSIT_KEY: missing/], ['a key that leaves its path', { VAULT_TRANSIT_KEY: '../sys/seal' }, /^VAULT_TRANSIT_KEY: goes into a path/], ['a mount that does', { VAULT_TRANSIT_MOUNT: 'a/../b' }, /^VAULT_TRANSIT_MOUNT: /],
    ['no login', { VAULT_TOKEN: '' }, /^VAULT_TOKEN, .*give one of them, though/], ['two logins', { VAULT_K8S_ROLE: 'novix' }, /and not several/], ['half a login', { VAULT_TOKEN: '', VAULT_ROLE_ID: 's3cret' }, /^VAULT_ROLE_ID, VAULT_SECRET_ID: give both/],
    ['a token that is no header', { VAULT_TOKEN: 's3cret\nx: y' }, /^VAULT_TOKEN: expected visible/],
  ])('refuses a Vault with %s, in one line', (_, change, line) => {
    expect(faultsOf({ ...ALL, ...VAULT, ...change })).toEqual([expect.stringMatching(line)]);
    expect(faultsOf({ ...ALL, ...VAULT, ...change }).join()).not.toContain('s3cret');
  });

  it('has the roots of payload keys kept by Vault where there is one and no folder is named', () => {
    expect(parseEnv({ ...ALL, ...VAULT }).payloadRoots.keeper).toBe('vault');
    expect(parseEnv({ ...ALL, ...VAULT, NOVIX_PAYLOAD_KEY_DIR: '/keys' }).payloadRoots).toEqual({ keeper: 'file', folder: '/keys' });
    expect(parseEnv({ ...ALL, NOVIX_DATA_DIR: '/data' }).payloadRoots).toEqual({ keeper: 'file', folder: '/data/payload-keys' });
  });

  it('leaves the settings of a Vault alone that is not named, and names of the user’s own', () => {
    expect(faultsOf({ ...ALL, VAULT_TOKEN: 'x', VAULT_ROLE_ID: 'y', VAULT_TRANSIT_KEY: '..' })).toEqual([]);
    expect(faultsOf({ ...ALL, ...VAULT, VAULT_SECRET: 'x', VAULT_FORMAT: 'json' })).toEqual([]);
  });

  it('leaves names that are not ours alone', () => {
    expect(faultsOf({ ...ALL, PATH: '/bin', HOME: '/root', XAIO: 'x', VAULT_SECRET: 'x', MY_XAI_KEY: 'x' })).toEqual([]);
  });

  it.each(['REDIS_URL'])('refuses %s rather than ignore it, as long as it does nothing', (name) => {
    expect(faultsOf({ ...ALL, [name]: 'x' })).toEqual([expect.stringMatching(new RegExp(`^${name}: `))]);
  });

  it('shows no secret in any fault', () => {
    const secret = 's3cret-v4lue';
    const names = ['XAI_API_KEY', 'DATABASE_URL', 'PORT', 'HOST', 'XAI_API_ENDPOINT', 'AUTH_JWKS_URI', 'XAI_TEMPERATURE', 'LOG_LEVEL', 'AI_PROVIDER', 'REDIS_URL', 'XAI_KEY', 'TLS_KEY', 'XAI_CLIENT_KEY', 'AUTH_ALGORITHMS', 'NODE_ENV'];
    for (const name of names) for (const value of [secret, `enc:${secret}`, `https://user:${secret}@x/`]) {
      expect(faultsOf({ ...PRODUCTION, [name]: value }).join('\n')).not.toContain(secret);
    }
  });

  it('takes a sealed key, and stops at a plain one behind enc:, at one of another provider, and at a certificate without its key', () => {
    expect(parseEnv({ ...ALL, XAI_API_KEY: 'enc:v1:local:abc' }).provider.apiKey).toBe('enc:v1:local:abc');
    expect(faultsOf({ ...ALL, XAI_API_KEY: 'enc:xai-plain' })).toEqual([expect.stringMatching(/^XAI_API_KEY: .*no sealed value/)]);
    expect(faultsOf({ ...ALL, XAI_API_KEY: 'enc:v1:vault:abc' })).toEqual([expect.stringMatching(/^XAI_API_KEY: .*VAULT_ADDR/)]);
    expect(faultsOf({ ...ALL, XAI_API_KEY: 'enc:v1:age:abc' })).toEqual([expect.stringMatching(/^XAI_API_KEY: .*AGE_IDENTITY_FILE/)]);
    for (const value of ['enc:', 'enc:v1:kms:abc', 'enc:v2:local:abc', 'enc:v1:local:', 'enc:v1:local:a+b', 'enc:v1:local:abc:def']) {
      expect({ value, faults: faultsOf({ ...ALL, XAI_API_KEY: value }) }).toEqual({ value, faults: [expect.stringMatching(/^XAI_API_KEY: .*no sealed value/)] });
    }
    expect(faultsOf({ ...ALL, XAI_CLIENT_CERT: 'c.pem' })).toEqual([expect.stringMatching(/both or neither/)]);
    expect(faultsOf({ ...ALL, XAI_CLIENT_CERT: 'c.pem', XAI_CLIENT_KEY: 'k.pem' })).toEqual([]);
  });

  it.each<[Source, RegExp[]]>([
    [{ AUTH_ISSUER: 'https://i', AUTH_AUDIENCE: 'a' }, [/^AUTH_JWKS_URI, AUTH_JWKS_FILE: give one/]],
    [{ AUTH_ISSUER: 'https://i', AUTH_AUDIENCE: 'a', AUTH_JWKS_URI: 'https://i/j', AUTH_JWKS_FILE: 'f' }, [/^AUTH_JWKS_URI, AUTH_JWKS_FILE: give one/]],
    [{ AUTH_JWKS_FILE: 'f' }, [/^AUTH_ISSUER: missing/, /^AUTH_AUDIENCE: missing/]],
    [{ AUTH_ISSUER: 'https://i', AUTH_AUDIENCE: 'a', AUTH_JWKS_FILE: 'f' }, []],
  ])('takes identity whole or not at all: %j', (identity, faults) => {
    expect(faultsOf({ ...DATABASE, ...PROVIDER, ...identity })).toEqual(faults.map((fault) => expect.stringMatching(fault)));
  });
});

describe('what starts how', () => {
  const parts = (database: boolean, provider: boolean, identity: boolean): SandboxParts => ({ database, provider, identity });
  const SANDBOX_ISSUER = { SANDBOX_ISSUER: 'yes' };

  it.each<[string, Source, SandboxParts]>([
    ['nothing given', {}, parts(true, true, true)],
    ['a database', DATABASE, parts(false, true, true)],
    ['identity', IDENTITY, parts(true, true, false)],
    ['a database and identity', { ...DATABASE, ...IDENTITY }, parts(false, true, false)],
    ['a real provider with identity', { ...PROVIDER, ...IDENTITY }, parts(true, false, false)],
    ['a real provider with the sandbox issuer, by leave and on loopback', { ...PROVIDER, ...SANDBOX_ISSUER }, parts(true, false, true)],
    ['the same on another loopback address', { ...PROVIDER, ...SANDBOX_ISSUER, HOST: '::1' }, parts(true, false, true)],
    ['all', ALL, parts(false, false, false)],
    ['all, in production', { ...ALL, ...PRODUCTION }, parts(false, false, false)],
  ])('%s', (_, source, expected) => {
    const env = parseEnv(source);
    expect(sandboxParts(env)).toEqual(expected);
    expect(anySandbox(sandboxParts(env))).toBe(expected.database || expected.provider || expected.identity);
    expect(isLoopback(env.http.host) || !anySandbox(expected)).toBe(true);
  });

  it.each<[string, Source, RegExp[]]>([
    ['production without a database', { ...PRODUCTION, ...PROVIDER, ...IDENTITY }, [/^DATABASE_URL: required/]],
    ['production without a provider', { ...PRODUCTION, ...DATABASE, ...IDENTITY }, [/^XAI_API_KEY: required/]],
    ['production without identity', { ...PRODUCTION, ...DATABASE, ...PROVIDER }, [/^AUTH_ISSUER.*: required/]],
    ['production without identity, even by leave on loopback', { ...PRODUCTION, ...DATABASE, ...PROVIDER, ...SANDBOX_ISSUER, HOST: '127.0.0.1' }, [/^AUTH_ISSUER.*: required/]],
    ['production with nothing', PRODUCTION, [/^DATABASE_URL/, /^XAI_API_KEY/, /^AUTH_ISSUER/]],
    ['an endpoint without a key', { XAI_API_ENDPOINT: 'https://api.x.ai/v1' }, [/^XAI_API_KEY: missing/]],
    ['a real key with the sandbox issuer', PROVIDER, [/^AUTH_ISSUER: missing/]],
    ['a real key with the sandbox issuer, leave misspelled', { ...PROVIDER, SANDBOX_ISSUER: 'true' }, [/^AUTH_ISSUER: missing/]],
    ['a real key with the sandbox issuer beyond loopback', { ...PROVIDER, ...DATABASE, ...SANDBOX_ISSUER, HOST: '0.0.0.0' }, [/^AUTH_ISSUER: missing/, /^HOST: /]],
    ['any sandbox part beyond loopback', { ...DATABASE, ...IDENTITY, HOST: '0.0.0.0' }, [/^HOST: /]],
    ['the whole sandbox on a LAN address', { HOST: '192.168.1.5' }, [/^HOST: /]],
  ])('refuses %s', (_, source, faults) => {
    expect(faultsOf(source)).toEqual(faults.map((fault) => expect.stringMatching(fault)));
  });

  it('listens everywhere in production only', () => {
    expect(parseEnv({ ...ALL, ...PRODUCTION }).http.host).toBe('0.0.0.0');
    expect(parseEnv(ALL).http.host).toBe('127.0.0.1');
  });

  it('does not wait before it drains in the sandbox, unless told to', () => {
    expect(parseEnv({}).drainDelayMs).toBe(0);
    expect(parseEnv({ DRAIN_DELAY_MS: '100' }).drainDelayMs).toBe(100);
    expect(parseEnv(ALL).drainDelayMs).toBe(5_000);
  });
});

describe('isLoopback', () => {
  it.each([['127.0.0.1', true], ['127.9.9.9', true], ['::1', true], ['[::1]', true], ['localhost', true], ['0.0.0.0', false], ['::', false], ['10.0.0.1', false], ['127.0.0.1.evil.example', false], ['localhost.evil.example', false], ['', false]])('%p: %p', (host, loopback) => {
    expect(isLoopback(host)).toBe(loopback);
  });
});
