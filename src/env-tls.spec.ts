import { describe, expect, it } from '@jest/globals';
import type { IssuerSettings } from './auth/identity-config.ts';
import { EnvError, parseEnv, sandboxParts, type Env } from './env.ts';

// Settings of inbound TLS, of trusted proxies, and of identity providers from the file.

type Source = Record<string, string | undefined>;
const DATABASE = { DATABASE_URL: 'postgresql://db/novix' };
const PROVIDER = { XAI_API_KEY: 'xai-key' };
const IDENTITY = { AUTH_ISSUER: 'https://idp.example', AUTH_AUDIENCE: 'novix', AUTH_JWKS_URI: 'https://idp.example/jwks' };
const ALL = { ...DATABASE, ...PROVIDER, ...IDENTITY };
const TLS = { TLS_CERT: 'cert.pem', TLS_KEY: 'key.pem' };
const CLIENTS = { ...TLS, TLS_CLIENT_CA: 'ca.pem' };
const ISSUER: IssuerSettings = { issuer: 'https://one.example', audience: 'novix', jwksUri: 'https://one.example/keys', jwksFile: undefined, algorithms: ['RS256'] };

function faultsOf(source: Source, issuers: readonly IssuerSettings[] = []): readonly string[] {
  try {
    parseEnv(source, issuers);
    return [];
  } catch (error) {
    if (error instanceof EnvError) return error.faults;
    throw error;
  }
}
const tlsOf = (source: Source): Env['tls'] => parseEnv({ ...ALL, ...source }).tls;

describe('TLS_*', () => {
  it('is off unless certificate and key are given', () => {
    expect(tlsOf({})).toBeUndefined();
    expect(tlsOf({ TLS_CERT: ' ', TLS_KEY: '' })).toBeUndefined();
    expect(tlsOf(TLS)).toEqual({ certFile: 'cert.pem', keyFile: 'key.pem', clientCaFile: undefined, clientCrlFile: undefined, clientCertificates: 'required', groups: [] });
  });

  it('makes client certificates mandatory by the CA alone', () => {
    expect(tlsOf(CLIENTS)).toMatchObject({ clientCaFile: 'ca.pem', clientCertificates: 'required' });
    expect(tlsOf({ ...CLIENTS, TLS_CLIENT_CRL: 'crl.pem', TLS_CLIENT_AUTH: 'required' })).toMatchObject({ clientCrlFile: 'crl.pem', clientCertificates: 'required' });
    expect(tlsOf({ ...CLIENTS, TLS_CLIENT_AUTH: 'optional' })).toMatchObject({ clientCertificates: 'optional' });
  });

  it.each<[string, string[]]>([
    ['X25519MLKEM768', ['X25519MLKEM768']], ['X25519MLKEM768:X25519', ['X25519MLKEM768', 'X25519']], ['X25519MLKEM768, P-256', ['X25519MLKEM768', 'P-256']], [' X25519MLKEM768 : : ', ['X25519MLKEM768']], [':', []],
  ])('reads the groups %j as %j', (text, groups) => {
    expect(tlsOf({ ...TLS, TLS_GROUPS: text })!.groups).toEqual(groups);
  });

  it.each<[string, Source, RegExp[]]>([
    ['a certificate without key', { TLS_CERT: 'c' }, [/^TLS_CERT, TLS_KEY: give both or neither$/]], ['a key without certificate', { TLS_KEY: 'k' }, [/^TLS_CERT, TLS_KEY: give both or neither$/]],
    ['a client CA without TLS', { TLS_CLIENT_CA: 'ca' }, [/^TLS_CERT, TLS_KEY: missing/]], ['a CRL without TLS', { TLS_CLIENT_CRL: 'crl' }, [/^TLS_CERT, TLS_KEY: missing/]], ['TLS_CLIENT_AUTH without TLS', { TLS_CLIENT_AUTH: 'optional' }, [/^TLS_CERT, TLS_KEY: missing/]], ['groups without TLS', { TLS_GROUPS: 'X25519' }, [/^TLS_CERT, TLS_KEY: missing/]],
    ['a CRL without a client CA', { ...TLS, TLS_CLIENT_CRL: 'crl' }, [/^TLS_CLIENT_CA: missing/]], ['TLS_CLIENT_AUTH without a client CA', { ...TLS, TLS_CLIENT_AUTH: 'required' }, [/^TLS_CLIENT_CA: missing/]],
    ...['none', 'Optional', 'off', 'true'].map((value): [string, Source, RegExp[]] => [`TLS_CLIENT_AUTH=${value}`, { ...CLIENTS, TLS_CLIENT_AUTH: value }, [/^TLS_CLIENT_AUTH: expected "required" or "optional"$/]]),
    ...['X25519;P-256', 'X25519 P-256', 'a'.repeat(65), '*', 'ALL!'].map((value): [string, Source, RegExp[]] => [`TLS_GROUPS=${value}`, { ...TLS, TLS_GROUPS: value }, [/^TLS_GROUPS: expected names/]]),
    ['two faults at once', { ...TLS, TLS_CLIENT_AUTH: 'maybe', TLS_GROUPS: '?' }, [/^TLS_CLIENT_CA: missing/, /^TLS_CLIENT_AUTH: /, /^TLS_GROUPS: /]],
    ['a name that is none', { TLS_CLIENT_CERT: 'x' }, [/^TLS_CLIENT_CERT: unknown setting; did you mean TLS_CLIENT_CRL\?$/]],
  ])('refuses %s with one line a fault', (_, source, faults) => {
    expect(faultsOf({ ...ALL, ...source })).toEqual(faults.map((fault) => expect.stringMatching(fault)));
  });
});

describe('TRUSTED_PROXIES', () => {
  it.each<[string | undefined, string[]]>([
    [undefined, []], ['', []], [' , ', []], ['127.0.0.1', ['127.0.0.1']], ['10.0.0.0/8, 2001:db8::/32,::1', ['10.0.0.0/8', '2001:db8::/32', '::1']], ['10.0.0.1/32,', ['10.0.0.1/32']],
  ])('%j is %j', (text, networks) => {
    expect(parseEnv({ ...ALL, TRUSTED_PROXIES: text }).trustedProxies).toEqual(networks);
  });

  it.each(['*', 'all', 'true', 'loopback', 'proxy.example', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0/8', '2001:db8::/129', '10.0.0.0/-1', '10.0.0.0/a', '127.0.0.1:80', '10.0.0.1 10.0.0.2', '10.0.0.1;10.0.0.2', '127.0.0.1,nonsense'])('refuses %j', (text) => {
    expect(faultsOf({ ...ALL, TRUSTED_PROXIES: text })).toEqual([expect.stringMatching(/^TRUSTED_PROXIES: expected addresses or networks/)]);
  });
});

describe('issuers of config/identity.yaml', () => {
  it('stand beside those of AUTH_*', () => {
    const env = parseEnv(ALL, [ISSUER]);
    expect([env.identity?.issuer, env.issuers]).toEqual(['https://idp.example', [ISSUER]]);
  });

  it('are identity enough: no sandbox, beside a real key and in production too', () => {
    for (const source of [{ ...DATABASE, ...PROVIDER }, { ...DATABASE, ...PROVIDER, NODE_ENV: 'production' }]) {
      expect(sandboxParts(parseEnv(source, [ISSUER]))).toEqual({ database: false, provider: false, identity: false });
      expect(faultsOf(source, [])).toEqual([expect.stringMatching(/^AUTH_ISSUER/)]);
    }
  });

  it('do not excuse half of AUTH_*', () => {
    expect(faultsOf({ ...DATABASE, ...PROVIDER, AUTH_ISSUER: 'https://idp.example' }, [ISSUER])).toEqual([expect.stringMatching(/^AUTH_AUDIENCE: missing/), expect.stringMatching(/^AUTH_JWKS_URI, AUTH_JWKS_FILE: give one/)]);
  });

  it('let the gateway listen beyond loopback, as nothing is imitated', () => {
    expect(parseEnv({ ...DATABASE, ...PROVIDER, HOST: '0.0.0.0' }, [ISSUER]).http.host).toBe('0.0.0.0');
  });
});
