import { describe, expect, it } from '@jest/globals';
import { mapClaims } from './claims-mapping.ts';
import type { ClaimsMapping } from './identity-config.ts';

const TIMES = { iss: 'https://idp.example', exp: 1_796_000_600, iat: 1_796_000_000 };
const map = (payload: Record<string, unknown>, mapping: ClaimsMapping): Record<string, unknown> => mapClaims({ ...TIMES, ...payload }, mapping);

describe('mapClaims', () => {
  it('leaves our own names alone, and takes nothing else along', () => {
    const payload = { ...TIMES, sub: 's', jti: 'j', tenant: 'acme', roles: ['developer'], attrs: { team: 'bi' }, client_id: 'app', cnf: { 'x5t#S256': 'x' } };
    expect(mapClaims({ ...payload, aud: 'novix', email: 'ada@acme.example', scope: 'openid' }, {})).toEqual(payload);
  });

  it('leaves out what is missing, so that the keys are', () => {
    expect(Object.keys(map({}, { tenant: { claim: 'tid' }, subject: 'oid', token_id: 'uti', client_id: 'azp', roles: { claim: 'groups' }, attrs: { team: 'team' } })).toSorted()).toEqual(['attrs', 'exp', 'iat', 'iss']);
  });

  it('does not take iss, exp, iat and cnf from anywhere else', () => {
    expect(map({ cnf: { jkt: 'k' } }, { tenant: { value: 'acme' } })).toEqual({ ...TIMES, cnf: { jkt: 'k' }, tenant: 'acme' });
  });

  it.each<[string, Record<string, unknown>, unknown]>([
    ['sub', { sub: 'ours', oid: 'theirs' }, 'theirs'], ['sub', { sub: 'ours' }, undefined], ['sub', { oid: 7 }, 7],
  ])('has %s of %j from the claim that is named, as it is: %j', (name, payload, expected) => {
    expect(map(payload, { subject: 'oid' })[name]).toBe(expected);
  });

  it.each<[string, Record<string, unknown>, ClaimsMapping['tenant'], unknown]>([
    ['a value, whatever the token says', { tenant: 'globex', tid: 'x' }, { value: 'acme' }, 'acme'], ['a claim', { tid: 'acme' }, { claim: 'tid' }, 'acme'], ['a mapped claim', { tid: 'x-1' }, { claim: 'tid', map: { 'x-1': 'acme' } }, 'acme'],
    ['nothing for what is not in the map', { tid: 'x-2', tenant: 'acme' }, { claim: 'tid', map: { 'x-1': 'acme' } }, undefined], ['nothing for our own name', { tid: 'acme' }, { claim: 'tid', map: { 'x-1': 'acme' } }, undefined],
    ['nothing for a list', { tid: ['x-1'] }, { claim: 'tid', map: { 'x-1': 'acme' } }, undefined], ['nothing for a number', { tid: 1 }, { claim: 'tid', map: { 1: 'acme' } }, undefined], ['nothing for names of JavaScript', { tid: 'constructor' }, { claim: 'tid', map: {} }, undefined],
    ['nothing for __proto__', { tid: '__proto__' }, { claim: 'tid', map: {} }, undefined], ['a path', { org: { id: 'acme' } }, { claim: 'org.id' }, 'acme'],
  ])('has the tenant by %s', (_, payload, tenant, expected) => {
    expect(map(payload, { tenant })['tenant']).toBe(expected);
  });

  it.each<[string, Record<string, unknown>, string, unknown]>([
    ['a path', { realm_access: { roles: ['a'] } }, 'realm_access.roles', ['a']], ['a name with dots before the path', { 'realm_access.roles': ['a'], realm_access: { roles: ['b'] } }, 'realm_access.roles', ['a']],
    ['a URL', { 'https://acme.example/roles': ['a'] }, 'https://acme.example/roles', ['a']], ['a path that ends early', { realm_access: {} }, 'realm_access.roles', undefined], ['a path through a text', { realm_access: 'roles' }, 'realm_access.length', undefined],
    ['a path through null', { realm_access: null }, 'realm_access.roles', undefined], ['a path through a list', { groups: [['a']] }, 'groups.0', undefined], ['what every object has', {}, 'constructor.name', undefined], ['a prototype', {}, '__proto__.roles', undefined],
    ['a length', { groups: { a: 1 } }, 'groups.toString', undefined],
  ])('follows %s', (_, payload, claim, expected) => {
    expect(map(payload, { roles: { claim } })['roles']).toEqual(expected);
  });

  const ROLES = { 'Novix.Developer': 'developer', 'novix-admin': 'tenant-admin', admins: 'tenant-admin' };
  it.each<[string, unknown, Record<string, string> | undefined, unknown]>([
    ['those of the map, and no others', ['Novix.Developer', 'Other', 'developer'], ROLES, ['developer']], ['each once', ['novix-admin', 'admins', 'novix-admin'], ROLES, ['tenant-admin']], ['none', [], ROLES, []], ['none of ours', ['developer', 'platform-admin'], ROLES, []],
    ['a lone text', 'Novix.Developer', ROLES, ['developer']], ['several in one text', 'x Novix.Developer admins', ROLES, ['developer', 'tenant-admin']], ['nothing that is no text', [1, null, { a: 1 }, ['admins']], ROLES, []], ['nothing of JavaScript', ['constructor', '__proto__', 'hasOwnProperty'], ROLES, []],
    ['all, without a map', ['a', 'b'], undefined, ['a', 'b']], ['the parts of a text, without a map', 'a b', undefined, ['a', 'b']], ['what is no list, to be refused by whoever reads it', { developer: true }, ROLES, { developer: true }], ['a number, likewise', 7, undefined, 7],
    ['a thousand groups, of which one counts', [...Array.from({ length: 1_000 }, (_, at) => `group-${at}`), 'admins'], ROLES, ['tenant-admin']],
  ])('has of the roles %s', (_, roles, by, expected) => {
    expect(map({ groups: roles }, { roles: { claim: 'groups', ...(by && { map: by }) } })['roles']).toEqual(expected);
  });

  it('has attributes under our names, or all of one claim', () => {
    const payload = { department: 'bi', extension_team: 'ops', profile: { region: ['eu'], level: 3 }, attrs: { department: 'forged' } };
    expect(map(payload, { attrs: { department: 'department', team: 'extension_team', region: 'profile.region', level: 'profile.level', none: 'profile.none' } })['attrs']).toEqual({ department: 'bi', team: 'ops', region: ['eu'], level: 3 });
    expect(map(payload, { attrs: 'profile' })['attrs']).toEqual({ region: ['eu'], level: 3 });
    expect(map({ department: null }, { attrs: { department: 'department' } })['attrs']).toEqual({});
    expect(map(payload, {})['attrs']).toEqual({ department: 'forged' });
  });

  it('makes no prototype of an attribute', () => {
    const { attrs } = map({ evil: { admin: true } }, { attrs: JSON.parse('{"__proto__":"evil"}') as Record<string, string> }) as { attrs: Record<string, unknown> };
    expect(attrs['admin']).toBeUndefined();
    expect(Object.getPrototypeOf(attrs)).toBe(Object.prototype);
  });
});
