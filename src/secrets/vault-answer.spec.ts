import { expect, it } from '@jest/globals';
import { verdictOf, type VaultVerdict } from './vault-answer.ts';

it.each<[number, string[], Partial<VaultVerdict>]>([
  [200, [], { kind: 'ok' }], [204, [], { kind: 'ok' }],
  [400, ['invalid ciphertext: unable to decrypt'], { kind: 'refused', because: 'other' }], [400, [], { kind: 'refused', because: 'other' }],
  [400, ['ciphertext or signature version is disallowed by policy (too old)'], { kind: 'refused', because: 'too_old' }], [400, ['encryption key not found'], { kind: 'refused', because: 'no_key' }],
  [400, ['missing client token'], { kind: 'denied' }], [403, ['permission denied'], { kind: 'denied' }],
  [404, [], { kind: 'unavailable', soon: false }], [301, [], { kind: 'unavailable', soon: false }], [307, [], { kind: 'unavailable', soon: false }],
  [412, [], { kind: 'unavailable', soon: true }], [429, [], { kind: 'unavailable', soon: true }], [500, ['1 error occurred'], { kind: 'unavailable', soon: true }], [502, [], { kind: 'unavailable', soon: true }],
  [503, ['Vault is sealed'], { kind: 'unavailable', soon: true, reason: 'Vault is sealed' }], [503, [], { kind: 'unavailable', soon: true, reason: 'Vault answers 503' }],
])('an answer %d with %j', (status, errors, expected) => {
  expect(verdictOf(status, errors)).toMatchObject(expected);
});
