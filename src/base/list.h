/* base/list.h: intrusive doubly linked ring. The owner of the list is its only user; no locking.
 *
 * A node that is in no list points at itself, so unlinking is O(1), needs no head, and may be repeated. */
#ifndef CP_BASE_LIST_H
#define CP_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct cp_list {
    struct cp_list *next, *prev;
};

#define cp_container(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void cp_list_init(struct cp_list *node)
{
    node->next = node->prev = node;
}

static inline bool cp_list_is_empty(const struct cp_list *node)
{
    return node->next == node;
}

/* Puts `node`, which is in no list, before `at`: at the end when `at` is the head. */
static inline void cp_list_push_back(struct cp_list *at, struct cp_list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

/* Puts `node`, which is in no list, behind `at`: at the front when `at` is the head. */
static inline void cp_list_push_front(struct cp_list *at, struct cp_list *node)
{
    cp_list_push_back(at->next, node);
}

static inline void cp_list_unlink(struct cp_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    cp_list_init(node);
}

#endif
