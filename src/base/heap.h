/* base/heap.h: intrusive pairing heap, the node with the least key first; equals in any order. The owner is its
 * only user.
 *
 * Adding is O(1), removing any node O(log n) amortised. After M. Fredman, R. Sedgewick, D. Sleator and R.
 * Tarjan, "The pairing heap" (1986). */
#ifndef CP_BASE_HEAP_H
#define CP_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cp_heap_node {
    int64_t key;
    struct cp_heap_node *child, *next; /* first child; next sibling */
    struct cp_heap_node *before;       /* the sibling before, or the parent; itself: in no heap */
};

struct cp_heap {
    struct cp_heap_node *least; /* NULL: empty */
};

static inline void cp_heap_node_init(struct cp_heap_node *node)
{
    node->before = node;
}

static inline bool cp_heap_has(const struct cp_heap_node *node)
{
    return node->before != node;
}

/* Of two trees one; either may be NULL. */
static inline struct cp_heap_node *cp_heap_meld(struct cp_heap_node *a, struct cp_heap_node *b)
{
    if (!a || !b)
        return a ? a : b;
    struct cp_heap_node *parent = b->key < a->key ? b : a, *child = parent == a ? b : a;
    child->next = parent->child;
    child->before = parent;
    if (child->next)
        child->next->before = child;
    parent->child = child;
    parent->next = parent->before = NULL;
    return parent;
}

/* Of siblings one tree: neighbours in pairs, then the pairs from the last to the first. */
static inline struct cp_heap_node *cp_heap_join(struct cp_heap_node *first)
{
    struct cp_heap_node *pairs = NULL, *tree = NULL;
    while (first) {
        struct cp_heap_node *second = first->next, *rest = second ? second->next : NULL;
        first->next = first->before = NULL;
        struct cp_heap_node *pair = cp_heap_meld(first, second);
        pair->next = pairs;
        pairs = pair;
        first = rest;
    }
    while (pairs) {
        struct cp_heap_node *next = pairs->next;
        pairs->next = pairs->before = NULL;
        tree = cp_heap_meld(tree, pairs);
        pairs = next;
    }
    return tree;
}

/* The node is in no heap. */
static inline void cp_heap_add(struct cp_heap *heap, struct cp_heap_node *node, int64_t key)
{
    *node = (struct cp_heap_node){.key = key};
    heap->least = cp_heap_meld(heap->least, node);
}

/* The node is in this heap, or in none. */
static inline void cp_heap_remove(struct cp_heap *heap, struct cp_heap_node *node)
{
    if (!cp_heap_has(node))
        return;
    struct cp_heap_node *children = cp_heap_join(node->child);
    if (node == heap->least) {
        heap->least = children;
    } else {
        if (node->before->child == node)
            node->before->child = node->next;
        else
            node->before->next = node->next;
        if (node->next)
            node->next->before = node->before;
        heap->least = cp_heap_meld(heap->least, children);
    }
    cp_heap_node_init(node);
}

#endif
