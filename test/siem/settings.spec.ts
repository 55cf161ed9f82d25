import { describe, expect, it } from '@jest/globals';
import { parseEnv } from '../../src/env.ts';

// What the environment says of the export.

const BASE = { DATABASE_URL: 'postgresql://localhost/x', XAI_API_KEY: 'k', AUTH_ISSUER: 'https://issuer.example', AUTH_AUDIENCE: 'a', AUTH_JWKS_URI: 'https://issuer.example/jwks' };

it('NOVIX_SIEM_DIR is a folder of the data folder unless it is set', () => {
  expect(parseEnv({ ...BASE }).siemDir).toBe('.novix/siem');
  expect(parseEnv({ ...BASE, NOVIX_DATA_DIR: '/var/novix' }).siemDir).toBe('/var/novix/siem');
  expect(parseEnv({ ...BASE, NOVIX_SIEM_DIR: '/srv/siem' }).siemDir).toBe('/srv/siem');
});

describe('EGRESS_ALLOW', () => {
  it('takes receivers of syslog beside origins', () => {
    expect(parseEnv({ ...BASE, EGRESS_ALLOW: 'https://a.example, tls://syslog.example:6514,tls://10.0.0.1:10514,tls://[fd00::1]:6514' }).egress.allowedOrigins)
      .toEqual(['https://a.example', 'tls://syslog.example:6514', 'tls://10.0.0.1:10514', 'tls://[fd00::1]:6514']);
  });

  it.each(['tls://syslog.example', 'tls://syslog.example:6514/', 'tls://Syslog.example:6514', 'tls://10.1:6514', 'tls://user@syslog.example:6514', 'tls://syslog.example:0', 'tls://syslog.example:99999', 'tls://', 'udp://syslog.example:514', 'file:///tmp/x'])('does not take %s, which is no exact origin', (origin) => {
    expect(() => parseEnv({ ...BASE, EGRESS_ALLOW: origin })).toThrow(/EGRESS_ALLOW: expected exact origins/);
  });
});
